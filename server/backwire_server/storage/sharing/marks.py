"""Marks: the names of directories that tell whose a session is, on a directory that servers share.

A mark has the epoch, which counts up with each change of owner, and the owner: `7.b.4f0c61a2e9d3` is the replica b in
one run of it, `8.` is nobody.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from backwire_server.sessions.errors import SessionNotFound

CHASES = 16
"""How often the files of a session are looked for that changes hands meanwhile."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The name of the directory that has a session: its epoch, and whose it is; empty texts for nobody's."""

    epoch: int
    replica: str = ""
    incarnation: str = ""

    @classmethod
    def of(cls, name: str) -> "Mark | None":
        """Returns the mark that `str` made a name of; None for other names."""
        epoch, _, owner = name.partition(".")
        replica, _, incarnation = owner.partition(".")
        mark = cls(int(epoch), replica, incarnation) if epoch.isdecimal() and epoch.isascii() else None
        return mark if mark is not None and str(mark) == name else None

    def __str__(self) -> str:
        owner = f"{self.replica}.{self.incarnation}" if self.replica else ""
        return f"{self.epoch}.{owner}"


def mark_of(root: Path, session_id: str) -> Mark:
    """Returns whose a session in a directory is now; raises SessionNotFound, OSError."""
    for _ in range(CHASES):  # a listing may miss what is renamed meanwhile
        try:
            names = os.listdir(root / session_id)
        except FileNotFoundError:
            break
        marks = [mark for name in names if (mark := Mark.of(name)) is not None]
        if marks:
            return max(marks, key=lambda mark: mark.epoch)
    raise SessionNotFound(f"there is no session {session_id[:64]!r} on disk; create a new one", field="session_id")
