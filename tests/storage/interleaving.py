"""Runs several actors in a given order of their system calls, so that every order of a short race can be tried.

Of the actors one runs at a time, and goes on until it has begun as many system calls on files as its turn has. Where an
order lets an actor go no further it is as one that was killed: nothing that would clean up behind it runs, until all
has been looked at.
"""

import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

CALLS = (
    *("open", "stat", "lstat", "listdir", "scandir", "mkdir", "rmdir", "rename", "link", "unlink", "remove", "chmod"),
    *("utime", "pread", "pwritev", "ftruncate", "fsync", "fdatasync", "sendfile"),
)
"""The functions of `os` before which another actor may have its turn; and `io.open`, by which paths are read."""

STUCK_SECONDS = 30.0

ALL = 1 << 30
"""More system calls than any actor makes."""


class _Killed(BaseException):
    """Ends the thread of an actor after all was looked at."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An actor, by its number, and how many system calls it may begin before the next turn."""

    actor: int
    calls: int


class Actor(threading.Thread):
    """A thread that runs only while it has a turn.

    Attributes:
        calls: How many system calls it has begun.
        ended: Whether its work is over.
        error: What its work raised.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.calls, self.ended = 0, False
        self.error: Exception | None = None
        self._work = work
        self._left = 0
        self._killed = False
        self._mine, self._others = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        """Does the work."""
        self._mine.acquire()
        try:
            if not self._killed:
                self._work()
        except _Killed:
            pass
        except Exception as error:
            self.error = error
        finally:
            self.ended = True
            self._others.release()

    def turn(self, calls: int) -> None:
        """Lets it go on; returns when it is about to begin one call more, or has ended."""
        if self.ended:
            return
        self._left = calls
        self._mine.release()
        assert self._others.acquire(timeout=STUCK_SECONDS), f"an actor is stuck after {self.calls} calls"

    def kill(self) -> None:
        """Has its thread end."""
        if not self.ended:
            self._killed = True
            self.turn(0)

    def before_call(self) -> None:
        """Waits for its turn. In this thread."""
        if self._killed:  # what cleans up goes on without turns
            return
        if self._left == 0:
            self._others.release()
            self._mine.acquire()
            if self._killed:
                raise _Killed
        self._left -= 1
        self.calls += 1


@contextmanager
def played(works: Sequence[Callable[[], object]], turns: Sequence[Turn]) -> Iterator[list[Actor]]:
    """Gives the actors as they are after these turns; ends them after the body."""
    actors = [Actor(work) for work in works]
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _in_turn(getattr(os, name)))
        patch.setattr(io, "open", _in_turn(io.open))
        for actor in actors:
            actor.start()
        try:
            for turn in turns:
                actors[turn.actor].turn(turn.calls)
            yield actors
        finally:
            for actor in actors:
                actor.kill()
                actor.join()


def _in_turn(call: Callable[..., Any]) -> Callable[..., Any]:
    def waiting(*args: Any, **kwargs: Any) -> Any:
        actor = threading.current_thread()
        if isinstance(actor, Actor):
            actor.before_call()
        return call(*args, **kwargs)

    return waiting
