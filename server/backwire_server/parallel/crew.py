"""The helpers of this process: started when there is something for them to do, replaced when they end.

What is computed does not depend on them: a part that no helper has computed, because there was none, or it was not
ready yet or was killed, is computed here. The same holds of other nodes, which get what no helper here is free for.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from backwire_server.engine.stopping import Stop, Stopped
from backwire_server.optim.sharing import ALONE, Hands
from backwire_server.parallel.kept import KEPT_BYTES
from backwire_server.parallel.member import Member
from backwire_server.parallel.shift import WAIT_SECONDS, Local, Remote, Shift
from backwire_server.parallel.task import Result, Work
from backwire_server.parallel.threads import LEAST, Threads

RESTART_SECONDS = 5.0
"""How long no helper is started after one that ended before it was ready."""

FAREWELL_SECONDS = 1.0
"""How long a helper may go on with a part that nobody waits for any more, before it is ended for it."""

_LOG = logging.getLogger("backwire.parallel")


class NoneFree(Exception):
    """No helper is free."""


class Elsewhere(Protocol):
    """The other nodes. May be used by several threads at once."""

    @property
    def traffic(self) -> tuple[int, int]:
        """How many bytes were sent there for parts, and received."""

    def lend(self, count: int) -> list[Remote]:
        """Returns at most so many, for whoever is alone with them until they are taken back."""

    def take_back(self, remotes: list[Remote]) -> None:
        """Takes back what was lent and has not ended."""

    def close(self) -> None:
        """Ends all connections."""


class Crew:
    """Computes batches in parts, with at most so many helpers. May be used by several threads at once.

    Attributes:
        most: The most helpers.
        pass_bytes: The most bytes that each keeps of passes, of those that are started from now on.
        elsewhere: The other nodes that compute parts; None for none.
        kept: How many parts the processes have computed that have the sessions.
        helped: How many parts helpers have computed.
        sent: How many parts other nodes have computed.
        lent: How many parts helpers have computed for other nodes.
    """

    def __init__(self, most: int, elsewhere: Elsewhere | None = None) -> None:
        self.most = most
        self.pass_bytes = KEPT_BYTES
        self.elsewhere = elsewhere
        self.kept = self.helped = self.sent = self.lent = 0
        self._mutex = threading.Lock()
        self._idle: list[Member] = []
        self._started: WeakSet[Member] = WeakSet()
        self._lent = 0
        self._threads: ThreadPoolExecutor | None = None
        self._not_before = 0.0

    @property
    def is_alone(self) -> bool:
        """Whether nobody else computes parts, here or on other nodes."""
        return not self.most and self.elsewhere is None

    @property
    def pids(self) -> list[int]:
        """The numbers of the helper processes that compute for nobody now."""
        with self._mutex:
            return [member.pid for member in self._idle]

    @property
    def kept_bytes(self) -> int:
        """The bytes that the helpers keep of passes for their Backward."""
        with self._mutex:
            return sum(member.kept_bytes for member in self._started)

    def compute(self, work: Work, local: Local, stop: Stop) -> list[Result]:
        """Returns the result of each part; raises what `local` raises, and Stopped.

        When it raises, helpers may go on to write where the parts have their gradients, until they are done.
        """
        with self._helpers(work.count - 1) as members, self._remotes(work, work.count - 1 - len(members)) as remotes:
            shift = Shift(work, members, remotes, local, self._note_end)
            try:
                while not shift.done:
                    if stop.wanted:
                        stop.heed()
                    shift.go_on()
            finally:
                self._count(shift)
                shift.abandon()
        return [result for _, result in sorted(shift.results.items())]

    def lend(self, work: Work, stop: Stop) -> Result | None:
        """Has a helper compute the one part of a work for another node; returns None where the engine refuses to.

        Raises NoneFree when no helper is free, and Stopped, after which nothing is written any more: a helper that is
        not done FAREWELL_SECONDS after it was to stop is ended.
        """
        with self._helpers(1) as members:
            try:
                if not members or not _is_free(members[0]):
                    raise NoneFree
                members[0].give(work, 0)
                _await_answer(members[0], stop)
                result = members[0].answer()
            except (OSError, EOFError, Stopped) as error:
                member = members.pop()
                member.end()
                if isinstance(error, Stopped):
                    raise
                self._note_end(member)
                raise NoneFree from None
        with self._mutex:
            self.lent += 1
        return result

    def hands(self, most: int, elements: int) -> Hands:
        """Returns at most so many hands for work on so many elements: the caller's and one for each helper not lent."""
        if elements < LEAST:
            return ALONE
        with self._mutex:
            count = min(most, 1 + self.most - self._lent)
            if count <= 1:
                return ALONE
            self._threads = self._threads or ThreadPoolExecutor(self.most, "backwire-hand")
            return Threads(self._threads, count)

    def close(self) -> None:
        """Ends the helpers that compute for nobody, and the connections to other nodes."""
        if self.elsewhere is not None:
            self.elsewhere.close()
        with self._mutex:
            ending, self._idle = self._idle, []
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)
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
                    members.append(Member(self.pass_bytes))
                except OSError as error:
                    _LOG.warning("a process to compute parts of batches could not be started: %s", error)
                    self._not_before = time.monotonic() + RESTART_SECONDS
                    break
                self._started.add(members[-1])
                self._lent += 1
        lent = len(members)
        try:
            yield members
        finally:
            with self._mutex:
                self._lent -= lent
                self._idle += members

    @contextmanager
    def _remotes(self, work: Work, count: int) -> Iterator[list[Remote]]:
        """Gives other nodes what helpers are too few for, where that is worth it, to be used as the helpers are."""
        elsewhere = self.elsewhere if count > 0 and work.definition and work.pace.is_long else None
        remotes = [] if elsewhere is None else elsewhere.lend(count)
        try:
            yield remotes
        finally:
            if elsewhere is not None:
                elsewhere.take_back(remotes)

    def _count(self, shift: Shift) -> None:
        with self._mutex:
            self.kept += shift.kept
            self.helped += shift.helped
            self.sent += shift.sent

    def _may_start(self) -> bool:
        return time.monotonic() >= self._not_before

    def _note_end(self, member: Member) -> None:
        if not member.ready:
            _LOG.warning("a process to compute parts of batches ended before it was ready; see what it logged")
            self._not_before = time.monotonic() + RESTART_SECONDS


def _is_free(member: Member) -> bool:
    """Tells whether a helper has nothing to do, and is ready; raises EOFError and OSError where it has ended."""
    if member.busy and member.hears(0.0):
        member.answer()
    return not member.busy


def _await_answer(member: Member, stop: Stop) -> None:
    ending: float | None = None
    while not member.hears(WAIT_SECONDS):
        if stop.wanted:
            ending = ending or time.monotonic() + FAREWELL_SECONDS
            if time.monotonic() > ending:
                stop.heed()


CREW = Crew(max(0, len(os.sched_getaffinity(0)) - 1))
"""That of this process, which has the other processors to itself as far as it knows."""
