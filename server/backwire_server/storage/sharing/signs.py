"""Signs of life: what the servers that share a data directory tell of themselves, each in a file under its name."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

SECOND = 10**9
"""In nanoseconds."""


@dataclass(frozen=True, slots=True)
class Member:
    """A server as it tells of itself: one of its name, the run of it, where it is called, and its latest sign of life.

    `address` is empty as long as it does not listen, `machine` where its end cannot be seen by a lock; see `Life`.
    `touched` is when the file system says that the sign was given, in nanoseconds; it is new where no other can be
    written, since the disk is full. `lease` is after how many seconds without a sign it wants to be taken for dead.
    """

    replica: str
    incarnation: str
    address: str
    beat: int
    machine: str = ""
    touched: int = 0
    lease: float = 0.0


def read_sign(directory: Path, replica: str, lease: float) -> Member | None:
    """Returns what a server of this name tells, or told last, with this lease if it tells none; None for none.

    Raises OSError.
    """
    try:
        with open(directory / replica, "rb") as file:
            told, touched = json.loads(file.read()), os.fstat(file.fileno()).st_mtime_ns
        life = told.get("machine", ""), touched, told.get("lease", lease)
        return Member(replica, told["incarnation"], told["address"], told["beat"], *life)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
