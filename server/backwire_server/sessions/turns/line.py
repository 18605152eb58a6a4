"""Calls of several sessions that wait for the same computation: who gets a processor computes for the others, too.

Nobody waits for others to come: a group is made of what waits when a processor is free. While a group is computed,
those that come wait for its end, and of each tenant the first then asks for a processor; so a call waits no longer than
its tenant would.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from weakref import WeakKeyDictionary

from backwire_server.sessions.turns.processor_turn import Turn
from backwire_server.sessions.turns.processors import LOOK
from backwire_server.xla.cohort import StateLost
from backwire_server.xla.group_step import Answer, Group, GroupStep, Member

_LOG = logging.getLogger("backwire.sessions")

MOST = 64
"""The most calls in a group. Groups have a power of two of them, since each number is compiled by itself."""

Compute = Callable[[Sequence[Member]], Group]
Accept = Callable[[Answer], None]


class Seat:
    """A call in a line; what happens to it is the line's affair.

    Attributes:
        compute: Computes members, of this call and of others in the line.
        member: What it needs computed.
        accept: Told what was computed before the state changes, by any thread; it does not when that raises.
        turn: The right to compute, to be asked for.
        alarm: Is set when one of the next has changed.
        asking: Whether it is to ask for a processor.
        taken: Whether it is in a group; its caller's going is then heeded by `accept` alone.
        done: Whether `answer` and `error` have come.
        answer: What was computed; None where it must be done in another way.
        error: What is to be raised.
        began: When its group began, by `perf_counter`.
    """

    __slots__ = ("accept", "alarm", "answer", "asking", "began", "compute", "done", "error", "member", "taken", "turn")

    def __init__(self, compute: Compute, member: Member, accept: Accept, turn: Turn) -> None:
        self.compute, self.member, self.accept, self.turn = compute, member, accept, turn
        self.alarm = threading.Event()
        self.asking = self.taken = self.done = False
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.began = 0.0

    @property
    def tenant(self) -> str:
        """Whose call it is."""
        return self.turn.scope.caller.tenant


class Line:
    """The calls that wait for one compiled step. May be used by several threads at once."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[Seat] = deque()
        self._asking: dict[str, Seat] = {}  # by tenant
        self._busy = False
        self._broken = False

    def compute(self, seat: Seat) -> Answer | None:
        """Returns what was computed for a call, by whomever; None where that must be done in another way.

        Raises what the step and what `accept` raises, and what `scope.check` raises until a group has it.
        """
        if self._broken:
            return None
        spent, asked = seat.turn.scope.spent, time.perf_counter()
        queue = spent.queue
        with self._mutex:
            self._waiting.append(seat)
            self._appoint([seat])
        while not seat.done:
            try:
                self._advance(seat)
            except BaseException:
                if self._withdraw(seat):
                    raise
        spent.queue = queue + seat.began - asked
        if seat.error is not None:
            raise seat.error
        return seat.answer

    def _advance(self, seat: Seat) -> None:
        """Waits for a processor and computes, or for one who does."""
        if seat.asking:
            with (turn := seat.turn) as stop:
                if stop.wanted and turn.held:
                    stop.heed()
                if turn.held:
                    self._lead(seat, turn)
        else:
            if not seat.alarm.wait(LOOK) and not seat.taken:
                seat.turn.scope.check()
            seat.alarm.clear()

    def _lead(self, seat: Seat, turn: Turn) -> None:
        group = self._take(seat)
        if not group:
            return
        turn.payers = [each.tenant for each in group]
        try:
            self._compute(group)
        finally:
            with self._mutex:
                self._busy = False
                self._appoint(self._waiting)
            for each in group:
                each.done = True
                each.alarm.set()

    def _compute(self, group: Sequence[Seat]) -> None:
        try:
            found = group[0].compute([seat.member for seat in group])
        except StateLost:
            return  # each finds out by itself
        except Exception:
            _LOG.exception("%d sessions cannot be computed together; they are computed one by one", len(group))
            self._broken = True
            return
        accepted = {}
        for place, seat in enumerate(group):
            try:
                answer = found.answer(place)
                if answer is not None:
                    seat.accept(answer)
                    accepted[place] = answer
            except BaseException as error:
                seat.error = error
        try:
            found.keep(accepted)
        except BaseException as error:
            for place in accepted:
                group[place].error = error
            return
        for place, answer in accepted.items():
            group[place].answer = answer

    def _take(self, leader: Seat) -> list[Seat]:
        """Returns those who are computed now, the leader first; none when others compute already."""
        with self._mutex:
            if leader.taken or self._busy:
                return []
            self._busy = True
            self._waiting.remove(leader)
            size = 1 << (min(len(self._waiting) + 1, MOST).bit_length() - 1)
            group = [leader, *(self._waiting.popleft() for _ in range(size - 1))]
            now = time.perf_counter()
            for seat in group:
                seat.taken, seat.began = True, now
            for seat in self._asking.values():
                seat.asking = False
                if seat is not leader:
                    seat.turn.excuse()
            self._asking = {}
            return group

    def _appoint(self, seats: Iterable[Seat]) -> None:
        """Has the first of each tenant ask for a processor where none does, unless a group is being computed."""
        if self._busy:
            return
        for seat in seats:
            if self._asking.setdefault(seat.tenant, seat) is seat and not seat.asking:
                seat.asking, seat.turn = True, seat.turn.anew()
                seat.alarm.set()

    def _withdraw(self, seat: Seat) -> bool:
        """Takes one out that goes; tells whether that is still possible."""
        with self._mutex:
            if seat.taken:
                return False
            self._waiting.remove(seat)
            if self._asking.get(seat.tenant) is seat:
                del self._asking[seat.tenant]
            self._appoint(self._waiting)
            return True


def line_of(step: GroupStep) -> Line:
    """Returns the line for a step: the same one for all who ask."""
    with _MUTEX:
        return _LINES.setdefault(step, Line())


_MUTEX = threading.Lock()
_LINES: WeakKeyDictionary[GroupStep, Line] = WeakKeyDictionary()
