"""What a session tells of itself."""

from dataclasses import dataclass

from backwire_server.engine.graph import Input, Parameter
from backwire_server.optim import Optimizer
from backwire_server.sessions.limits import Limits


@dataclass(frozen=True, slots=True)
class Home:
    """The process that keeps sessions, where there are several: what its sessions' ids begin with, and its address."""

    id_prefix: str = "s_"
    address: str = ""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a session is and where it stands. Times are seconds since 1970; the address is that of Home."""

    session_id: str
    created: float
    last_used: float
    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    has_loss: bool
    optimizer: Optimizer | None
    seed: int
    limits: Limits
    step: int
    contributions: int
    forward_ids: tuple[str, ...]
    address: str

    @property
    def nbytes(self) -> int:
        """Roughly the bytes that it takes to say all this."""
        return 1_024 + 256 * (len(self.inputs) + len(self.parameters) + len(self.outputs) + len(self.forward_ids))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a session tells of itself without waiting for its turn; each pass by its name and when it was made."""

    step: int
    contributions: int
    births: tuple[tuple[str, float], ...]
