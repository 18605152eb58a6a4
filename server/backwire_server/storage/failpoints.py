"""Places where a test has this process killed or the disk fail, by name; they do nothing unless they are armed.

BACKWIRE_FAILPOINTS arms them when it is set before this module is imported: `journal.append=ENOSPC@2` raises that
error at the second time that the place is passed, and `checkpoint.renamed=kill` kills the process at the first.
"""

import errno
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from backwire_api.tensors import Bytes

VARIABLE = "BACKWIRE_FAILPOINTS"

NAMES = (
    "create.made",
    "create.filled",
    "create.renamed",
    "definition.begun",
    "definition.half",
    "definition.written",
    "definition.synced",
    "definition.renamed",
    "segment.created",
    "segment.headed",
    "journal.append",
    "journal.append.half",
    "journal.append.written",
    "journal.append.undo",
    "journal.flush",
    "journal.flushed",
    "journal.cut",
    "journal.renewed",
    "mend.segment",
    "mend.begun",
    "mend.half",
    "mend.written",
    "mend.synced",
    "mend.renamed",
    "checkpoint.begun",
    "checkpoint.half",
    "checkpoint.written",
    "checkpoint.synced",
    "checkpoint.renamed",
    "manifest.begun",
    "manifest.half",
    "manifest.written",
    "manifest.synced",
    "manifest.renamed",
    "manifest.committed",
    "prune.checkpoint",
    "prune.segment",
    "fork.linked",
    "fork.journal",
    "deletion.begun",
    "deletion.half",
    "deletion.written",
    "deletion.synced",
    "deletion.renamed",
    "delete.noted",
    "delete.renamed",
    "delete.removed",
)
"""All failpoints."""

_SETTING = re.compile(r"([a-z.]+)=(kill|E[A-Z]+)(?:@([1-9][0-9]*))?")


class _Setting(NamedTuple):
    action: str
    turn: int


class _Armed:
    """Counts how often each failpoint is passed. May be used by several threads at once."""

    def __init__(self, text: str) -> None:
        self._settings = dict(map(_parsed, text.split(",")))
        self.passed = dict.fromkeys(self._settings, 0)
        self._mutex = threading.Lock()

    def hit(self, name: str) -> None:
        setting = self._settings.get(name)
        if setting is None:
            return
        with self._mutex:
            self.passed[name] += 1
            now = self.passed[name] == setting.turn
        if now and setting.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if now:
            number = getattr(errno, setting.action)
            raise OSError(number, os.strerror(number))

    def halves(self, name: str, pieces: Sequence[Bytes]) -> Iterator[Sequence[Bytes]]:
        if name not in self._settings:
            yield pieces
            return
        data = b"".join(bytes(piece) for piece in pieces)
        yield [data[: len(data) // 2]]
        self.hit(name)
        yield [data[len(data) // 2 :]]


def _nothing(_: str) -> None:
    """What passing a failpoint does when none is armed."""


def _whole(_: str, pieces: Sequence[Bytes]) -> Iterable[Sequence[Bytes]]:
    return (pieces,)


hit: Callable[[str], None] = _nothing
"""Marks a place; to be called by its full name, `failpoints.hit`, since arming replaces it."""

halves: Callable[[str, Sequence[Bytes]], Iterable[Sequence[Bytes]]] = _whole
"""Gives what is to be written all at once; where the failpoint is armed in two parts, and passes it between them."""


def arm(text: str) -> Mapping[str, int]:
    """Arms the failpoints in a text such as `checkpoint.renamed=kill@3,journal.append=ENOSPC`, and no others.

    Returns how often each of them was passed, up to date at any time. Raises ValueError for a name or an action that
    does not exist.
    """
    global hit, halves
    armed = _Armed(text)
    hit, halves = armed.hit, armed.halves
    return armed.passed


def disarm() -> None:
    """Has all failpoints do nothing again."""
    global hit, halves
    hit, halves = _nothing, _whole


def _parsed(text: str) -> tuple[str, _Setting]:
    found = _SETTING.fullmatch(text.strip())
    if not found or found[1] not in NAMES or (found[2] != "kill" and not hasattr(errno, found[2])):
        raise ValueError(
            f"{text!r} is no failpoint; write NAME=kill or NAME=ERROR, such as ENOSPC, and @N for the N-th time, with "
            f"a name of {', '.join(NAMES)}"
        )
    return found[1], _Setting(found[2], int(found[3] or 1))


if os.environ.get(VARIABLE):
    arm(os.environ[VARIABLE])
