"""The helpers of this process: started when there is something for them to do, replaced when they end.

What is computed does not depend on them: a part that no helper has computed, because there was none, or it was not
ready yet or was killed, is computed here.
"""

import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backwire_server.engine.stopping import Stop
from backwire_server.parallel.member import Member
from backwire_server.parallel.task import Result, Work

WAIT_SECONDS = 0.05
"""After how long a call that waits for helpers looks whether it is to stop."""

RESTART_SECONDS = 5.0
"""How long no helper is started after one that ended before it was ready."""

_LOG = logging.getLogger("backwire.parallel")

Local = Callable[[int], Result]
"""Computes the part of a number in this process."""


class Crew:
    """Computes batches in parts, with at most so many helpers. May be used by several threads at once.

    Attributes:
        most: The most helpers.
        helped: How many parts helpers have computed.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.helped = 0
        self._mutex = threading.Lock()
        self._idle: list[Member] = []
        self._lent = 0
        self._not_before = 0.0

    @property
    def pids(self) -> list[int]:
        """The numbers of the helper processes that compute for nobody now."""
        with self._mutex:
            return [member.pid for member in self._idle]

    def compute(self, work: Work, local: Local, stop: Stop) -> list[Result]:
        """Returns the result of each part; raises what `local` raises, and Stopped.

        When it raises, helpers may go on to write where the parts have their gradients, until they are done.
        """
        with self._helpers(work.count - 1) as members:
            shift = _Shift(work, members, local, self._note_end)
            try:
                while not shift.done:
                    if stop.wanted:
                        stop.heed()
                    shift.go_on()
            finally:
                self.helped += shift.helped
                shift.abandon()
        return [result for _, result in sorted(shift.results.items())]

    def close(self) -> None:
        """Ends the helpers that compute for nobody."""
        with self._mutex:
            ending, self._idle = self._idle, []
        for member in ending:
            member.end()

    @contextmanager
    def _helpers(self, count: int) -> Iterator[list[Member]]:
        """Gives at most so many helpers, started if need be, to whoever is alone with them for the block."""
        members: list[Member] = []
        with self._mutex:
            while self._idle and len(members) < count:
                members.append(self._idle.pop())
            self._lent += len(members)
            while len(members) < count and self._lent + len(self._idle) < self.most and self._may_start():
                try:
                    members.append(Member())
                except OSError as error:
                    _LOG.warning("a process to compute parts of batches could not be started: %s", error)
                    self._not_before = time.monotonic() + RESTART_SECONDS
                    break
                self._lent += 1
        lent = len(members)
        try:
            yield members
        finally:
            with self._mutex:
                self._lent -= lent
                self._idle += members

    def _may_start(self) -> bool:
        return time.monotonic() >= self._not_before

    def _note_end(self, member: Member) -> None:
        if not member.ready:
            _LOG.warning("a process to compute parts of batches ended before it was ready; see what it logged")
            self._not_before = time.monotonic() + RESTART_SECONDS


CREW = Crew(max(0, len(os.sched_getaffinity(0)) - 1))
"""That of this process, which has the other processors to itself as far as it knows."""


class _Shift:
    """The parts of one batch, on their way."""

    def __init__(self, work: Work, members: list[Member], local: Local, lost: Callable[[Member], None]) -> None:
        """Removes those from `members` that end, and tells `lost` of them."""
        self.results: dict[int, Result] = {}
        self.helped = 0
        self._work, self._members, self._local, self._lost = work, members, local, lost
        self._waiting = deque(range(work.count))
        self._refused: list[int] = []

    @property
    def done(self) -> bool:
        """Whether all results are there."""
        return len(self.results) == self._work.count

    def go_on(self) -> None:
        """Gives parts to helpers that wait for some, from the last on, and computes the first, or waits for theirs."""
        for member in list(self._members):
            if self._waiting and not member.busy:
                self._give(member, self._waiting.pop())
        place = self._refused.pop() if self._refused else self._waiting.popleft() if self._waiting else None
        if place is not None:
            self.results[place] = self._local(place)
        self._hear(WAIT_SECONDS if place is None else 0.0)

    def abandon(self) -> None:
        """Waits for no helper any more."""
        for member in self._members:
            member.place = None

    def _give(self, member: Member, place: int) -> None:
        try:
            member.give(self._work, place)
        except OSError:
            self._lose(member)
            self._waiting.append(place)

    def _hear(self, seconds: float) -> None:
        """Takes the answers that have come, or come within so many seconds."""
        with selectors.DefaultSelector() as selector:
            for member in self._members:
                if member.busy:
                    selector.register(member.connection, selectors.EVENT_READ, member)
            heard = [key.data for key, _ in selector.select(seconds)]
        for member in heard:
            place, ready = member.place, member.ready
            try:
                result = member.answer()
            except (OSError, EOFError):
                self._lose(member)
                continue
            if place is None or not ready:
                continue  # it is ready now, or done with what nobody waits for
            if result is None:
                self._refused.append(place)
            else:
                self.results[place] = result
                self.helped += 1

    def _lose(self, member: Member) -> None:
        """Parts with a helper that has ended; what it was to compute waits again."""
        if member.place is not None:
            self._waiting.append(member.place)
        self._members.remove(member)
        self._lost(member)
        member.end()
