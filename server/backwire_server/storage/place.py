"""Where the files of sessions are, and what they share."""

import math
from dataclasses import dataclass
from pathlib import Path

from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.storage.checkpoints.checkpointer import Checkpointer
from backwire_server.storage.checkpoints.copies import Copies
from backwire_server.storage.checkpoints.pacing import DUE_BYTES
from backwire_server.storage.disk import Usage


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of sessions are, and what they share.

    Attributes:
        root: The directory that has one for every session.
        limits: What their definitions are held to.
        usage: Counts their bytes.
        checkpointer: Writes in the background.
        due_bytes: How many bytes of journal lead to a checkpoint, if they are as many as the last one has.
        copies: Where checkpoints are copied to; None for nowhere.
        boot: The boot of this machine, where nobody else uses the directory; see `boots`.
        replay_seconds: How much computing leads to a checkpoint that only shortens a replay, if that is WORTH it.
    """

    root: Path
    limits: Limits
    usage: Usage
    checkpointer: Checkpointer
    due_bytes: int = DUE_BYTES
    copies: Copies | None = None
    replay_seconds: float = math.inf
    boot: str = ""

    def of(self, _: str, __: Check = unchecked) -> "Place":
        """Returns where a new session of an id goes; raises OSError."""
        return self
