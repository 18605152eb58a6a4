"""How sessions are doing, as those see it who look on."""

from dataclasses import dataclass
from enum import Enum, auto


class SessionState(Enum):
    """Where a session is."""

    AWAKE = auto()
    """In memory."""

    ASLEEP = auto()
    """On disk alone; the next call has it in memory again."""

    RECOVERING = auto()
    """Being made from its journal."""

    QUARANTINED = auto()
    """On disk, with files that cannot be used."""


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """How a session is doing.

    Attributes:
        session_id: The session's id.
        state: Where it is.
        step: The number of steps applied, 0 while that is not known.
        steps: How many steps were done since the process started.
        loss: The loss of the last pass in training; None for none since the process started.
        gradient_norm: That of the last step; None for none since the process started.
        learning_rate: That of the last step; None for none since the process started.
        contributions: How many contributions wait for the next step.
        passes: How many passes are alive.
        nbytes: The bytes that it holds in memory.
        last_used: When it was last used, in seconds since 1970.
    """

    session_id: str
    state: SessionState
    step: int
    steps: int
    loss: float | None
    gradient_norm: float | None
    learning_rate: float | None
    contributions: int
    passes: int
    nbytes: int
    last_used: float


@dataclass(frozen=True, slots=True)
class Overview:
    """How many sessions there are, how many of them are in memory, the bytes they hold there, and some of them."""

    count: int
    awake: int
    nbytes: int
    sessions: list[SessionStatus]
