"""What a client has seen acknowledged, in a file, so that an heir goes on where one was killed."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """How far a slot has come.

    Attributes:
        number: The how-manieth story of the slot.
        done: How many of its deeds were acknowledged.
        session: The id of its session, empty before it was created.
        other: The id of a branch that was made and not yet left.
        judged: Whether the session was compared with its twin, and nothing but its deletion is left.
    """

    number: int = 0
    done: int = 0
    session: str = ""
    other: str = ""
    judged: bool = False


class Notebook:
    """The last note of a slot; whoever is killed while writing leaves this one or the one before."""

    def __init__(self, path: Path) -> None:
        """Reads the last note, if another has left one."""
        self._path = path
        self.last = Note(**json.loads(path.read_text())) if path.exists() else Note()

    def write(self, note: Note) -> None:
        """Notes it in place of the last."""
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(note)))
        os.replace(beside, self._path)
        self.last = note
