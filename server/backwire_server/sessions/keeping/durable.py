"""What a session needs from whoever keeps its files; see `sessions.keeping.vault` for whoever keeps those of all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from backwire_server.sessions.calls import CheckpointInfo
from backwire_server.sessions.errors import SessionError
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import CallScope, Check, unchecked
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.state import Image, RequestImage


class Durability(Enum):
    """What a mutation outlives once it was acknowledged."""

    MEMORY = "memory"  # nothing
    JOURNAL = "journal"  # the process: it is written to a file before the answer
    FSYNC = "fsync"  # the machine: the file is flushed before the answer


@dataclass(frozen=True, slots=True)
class Mutation:
    """An accepted change of a session, as its journal has it.

    Attributes:
        call: What was asked for: one of the mutating calls of `sessions.calls`.
        key: The request's identity, None for one without a request id.
        dropped: The passes that went for their age or for limits since the mutation before.
    """

    call: Any
    key: RequestKey | None = None
    dropped: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Loss:
    """What a loss of power took of a journal: all after a record, at least so many, in so many bytes that were left."""

    record: int
    records: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a session is made from again: an image (None: its specification alone), and then these mutations.

    `count` is how many mutations there are, to tell how far recovery is. The iterator raises SessionQuarantined where
    the journal is damaged. `digests` has the digest that the state must have after the mutation of a number (the first
    after the image is 1), where a later checkpoint tells it. `loss` tells what is known to have come after them, and is
    gone.
    """

    image: Image | None
    mutations: Iterator[Mutation]
    count: int = 0
    digests: Mapping[int, str] = field(default_factory=dict)
    loss: Loss | None = None


class SessionFiles(Protocol):
    """The files of one session. For one thread at a time, but for `wait` and `replay_bytes`."""

    @property
    def durability(self) -> Durability:
        """What mutations outlive."""

    @property
    def created(self) -> float:
        """When the session was created, in seconds since 1970."""

    @property
    def key(self) -> RequestKey | None:
        """The request that created the session."""

    @property
    def definition(self) -> str:
        """The digest of what the session was made from, as `vault.Entry` has it."""

    def spec(self) -> SessionSpec:
        """Returns what the session was made from; without first values where a checkpoint has them."""

    def recover(self) -> Recovery:
        """Returns what to make the session from, and cuts a torn tail; raises SessionQuarantined."""

    def append(self, mutation: Mutation) -> int:
        """Writes a record and returns its number, 1 for the first.

        Raises StorageFailed with nothing written that counts, DiskQuotaExceeded before anything is written.
        """

    def wait(self, number: int, scope: CallScope) -> None:
        """Returns when the record of this number is as durable as it is to be; at once below FSYNC.

        Raises StorageFailed when it cannot be, and what `scope.check` raises.
        """

    @property
    def broken(self) -> bool:
        """Whether something failed after which they must be closed, and opened and recovered from again."""

    @property
    def lost(self) -> SessionError | None:
        """Why the files are this process's no more, and `broken` for that; None while they are."""

    @property
    def due(self) -> bool:
        """Whether the journal has grown so far that a checkpoint should be made."""

    def lags(self, seconds: float) -> bool:
        """Whether a passing checkpoint should be made, as what took so many seconds would have to be done again."""

    @property
    def dirty(self) -> bool:
        """Whether there are records since the last checkpoint that stays, or there is none."""

    @property
    def replay_bytes(self) -> int:
        """The bytes of journal that follow the last checkpoint."""

    def checkpoint(self, image: Image, *, background: bool, passing: bool = False) -> None:
        """Takes over an image of this moment, to which replay need not go back beyond; closes it when it is written.

        Records that follow belong to it from now on. Without `background` it is complete at return, and StorageFailed
        tells that it could not be; in the background a failure is logged, and the journal simply stays longer. One that
        is `passing` only shortens a replay, for as long as it is the newest: sessions can be taken back as far as
        without it.
        """

    def save(self, name: str, image: Image, key: RequestKey | None = None) -> "Future[CheckpointInfo]":
        """Has a checkpoint written that stays until it is deleted, in place of one of the same name.

        Takes over the image, and closes it soon. What is done afterwards comes after it. Remembers the request, if
        there is one, with its answer. The future has that when it is on the disk, or StorageFailed or DiskQuotaExceeded
        when there is nothing of it.
        """

    def checkpoints(self) -> list[CheckpointInfo]:
        """Returns the checkpoints that there are, oldest first."""

    def delete_checkpoint(self, name: str, key: RequestKey | None = None) -> None:
        """Removes what `save` wrote, and remembers the request; raises CheckpointNotFound."""

    def requests(self) -> Sequence[RequestImage]:
        """Returns the requests that `save` and `delete_checkpoint` remember."""

    def load(self, name: str) -> Image:
        """Reads what `save` wrote and verifies it; raises CheckpointNotFound, SessionQuarantined."""

    def rewind(self, step: int) -> Recovery:
        """Returns what leads to a step at or after the oldest checkpoint that the server kept.

        Whoever replays stops when the state has this step. Raises CheckpointNotFound for a step before that.
        """

    def restart(self, image: Image) -> None:
        """Makes an image what the session goes on from, whatever was before, and closes it. Wholly or not at all."""

    def fork(self, session_id: str, key: RequestKey | None, check: Check = unchecked) -> "SessionFiles":
        """Returns the files of a new session with the state of this moment, without copying what it holds.

        Its journal ends with a BranchCall. Waits as `Vault.open` does.
        """

    def hand_over(self, replica: str, write: Callable[[], None]) -> str:
        """Has another server have the files once they are closed, and returns where that is called.

        Where there is such a server, `write` is called before. Raises InvalidRequest when none of that name lives, or
        none shares the files, and NoWorker when it may have stalled. To name this one is no change.
        """

    def close(self) -> None:
        """Waits for what is being written and closes files. They are opened again when they are needed."""
