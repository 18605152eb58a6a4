"""What the workers of a cluster have to do, as they tell it, and what gateways are told of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionLoad:
    """A durable session in memory.

    Attributes:
        session_id: Its id.
        nbytes: The bytes that it holds.
        busy: Which part of its worker's processors it used since it was asked for last: an estimate by the steps that
            were done and the bytes of the sessions that did them.
    """

    session_id: str
    nbytes: int
    busy: float


@dataclass(frozen=True, slots=True)
class Load:
    """A worker that serves.

    Attributes:
        worker: Its name, as actor and as replica.
        address: Where it is called.
        busy: Which part of its processors was in use since it was asked for last, 0 to 1.
        nbytes: The bytes that its sessions hold in memory.
        most_bytes: The bytes that they may hold.
        awake: How many sessions it has in memory.
        sessions: Those that were used last, and may be moved.
        takes_calls: Whether it is given new calls: not while it ends, nor while it does not answer.
        hangs: Whether its data directory does, so that calls for durable sessions can only wait there.
    """

    worker: str
    address: str
    busy: float = 0.0
    nbytes: int = 0
    most_bytes: int = 1
    awake: int = 0
    sessions: tuple[SessionLoad, ...] = ()
    takes_calls: bool = True
    hangs: bool = False

    @property
    def memory(self) -> float:
        """Which part of the bytes that its sessions may hold they do."""
        return self.nbytes / self.most_bytes

    @property
    def pressure(self) -> float:
        """How full it is, by what it is fullest of: processors or memory."""
        return max(self.busy, self.memory)


@dataclass(frozen=True, slots=True)
class View:
    """The workers of a cluster as a gateway has them.

    Attributes:
        loads: Those that may have calls, without their sessions.
        problem: Why a worker could not be made; empty once one serves.
        waiting: What those wait for that do not serve, or hang; empty where there are none.
    """

    loads: tuple[Load, ...] = ()
    problem: str = ""
    waiting: str = ""
