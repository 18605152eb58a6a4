"""Who computes when there is more to compute than processors to do it: tenants get equal shares of time.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each tenant has a clock that runs while it computes, and a
processor that is free goes to the tenant whose clock is behind all others. One that comes back after a pause has its
clock set forward to the others', so that it gains nothing by waiting. Where others wait, a computation gives way
between two kernels, and goes on when its turn has come again. A tenant with nothing computing need not wait for that.
A computation that serves calls of several is paid for by their tenants, each call by the same share.
"""

import threading
import time
from collections.abc import Callable

from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.turns.processor_turn import Tenant, Turn

LEAD = 0.002
"""Seconds that a tenant may be ahead of one that waits, before what it computes gives way; none where that one comes
for the first of its computations, so that it is soon gone again."""

SLICE = 0.1
"""Seconds after which a computation gives way to another of its own tenant; most are done before."""

LOOK = 0.1
"""Seconds between looks at whether a caller is still there who is not the next of its tenant."""

PATIENCE = 0.02
"""Seconds that a tenant waits, which has nothing computing, for one that stays in a long kernel; then both compute."""

WRITING = 0.1
"""Seconds that one may write to the disk before its processor is another's, as for good where the disk hangs."""


class Processors:
    """Lets so many computations go on at a time. May be used by several threads at once."""

    def __init__(self, count: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._count = count
        self._free = count  # less than none, while tenants compute before another has given way to them
        self._now = 0.0  # on the tenants' clocks
        self._used = 0.0  # by all that have computed
        self._tenants: dict[str, Tenant] = {}
        self._running: set[Turn] = set()

    def turn(self, scope: CallScope) -> Turn:
        """Returns the right to compute for a call, as a context; to enter it raises what `scope.check` raises."""
        return Turn(self, scope)

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    @property
    def used(self) -> float:
        """The seconds that all of them were in use, together."""
        with self._mutex:
            now = self._clock()
            return self._used + sum(now - turn.began for turn in self._running)

    @property
    def waiting(self) -> int:
        """How many computations wait for a processor."""
        return sum(len(tenant.waiting) for tenant in list(self._tenants.values()))

    def begin(self, turn: Turn) -> None:
        """Has a computation begin, once its turn has come."""
        with self._mutex:
            if turn.excused:
                return
            tenant = self._tenant(turn.scope.caller.tenant)
            visiting = not (tenant.running or tenant.waiting)
            turn.tenant = tenant
            if self._free > 0 and not tenant.waiting:
                self._start(turn)
                return
            pressed = self._press(turn, lead=0.0 if visiting else LEAD)
            if visiting and pressed and self._free > -self._count:
                self._start(turn)
                return
            turn.alarm = threading.Event()
            tenant.waiting.append(turn)
        self._wait(turn)

    def end(self, turn: Turn) -> None:
        """Ends a computation that has begun, unless its caller went while it gave way, or it lost its processor."""
        with self._mutex:
            if turn in self._running:
                self._stop(turn)
                self._pass_on()

    def excuse(self, turn: Turn) -> None:
        """Ends the waiting of a computation, without its turn; one that has begun goes on."""
        with self._mutex:
            turn.excused = True
            if turn.alarm is not None and turn in turn.tenant.waiting:
                turn.tenant.waiting.remove(turn)
                turn.alarm.set()
                self._rouse(turn.tenant)

    def holds(self, turn: Turn) -> bool:
        """Whether a computation goes on."""
        with self._mutex:
            return turn in self._running

    def give_way(self, turn: Turn) -> None:
        """Has others compute that are before this one now, if there are any, and returns when it may go on."""
        with self._mutex:
            if turn in self._running:
                self._stop(turn)
            tenant = turn.tenant = self._tenants.setdefault(turn.tenant.name, turn.tenant)
            turn.alarm = threading.Event()
            if turn.lasted >= SLICE:
                turn.lasted = 0.0
                tenant.waiting.append(turn)
            else:
                tenant.waiting.appendleft(turn)  # it gives way to another tenant, and is the next of its own
            self._pass_on()
        self._wait(turn)

    def _wait(self, turn: Turn) -> None:
        """Waits until the turn has come; only the next of each tenant looks often, and presses."""
        scope, asked, pause = turn.scope, self._clock(), LEAD
        assert turn.alarm is not None
        try:
            while not (turn in self._running or turn.excused):
                if not turn.alarm.wait(pause):
                    scope.check()
                pause = self._look(turn, asked)
        except BaseException:
            with self._mutex:
                self._give_up(turn)
            raise
        finally:
            scope.spent.queue += self._clock() - asked

    def _look(self, turn: Turn, asked: float) -> float:
        """Does what can be done for one that waits since `asked`; returns when to look again, in seconds."""
        with self._mutex:
            if turn in self._running or turn.excused:
                return 0.0
            assert turn.alarm is not None
            turn.alarm.clear()
            tenant = turn.tenant
            if tenant.waiting[0] is not turn:
                return LOOK
            now = self._clock()
            if stuck := [each for each in self._running if now - each.writes >= WRITING]:
                for each in stuck:
                    self._stop(each)
                self._pass_on()
            elif now - asked >= PATIENCE and not tenant.running:
                self._start(self._next(tenant))
            else:
                self._press(turn)
            return LEAD

    def _press(self, turn: Turn, lead: float = LEAD) -> bool:
        """Has one that computes give way who should not be before this one, see LEAD and SLICE; tells if there is."""
        tenant, now = turn.tenant, self._clock()
        for other in sorted(self._running, key=lambda each: each.began):
            lasted = now - other.began
            ahead = other.tenant.used + lasted - tenant.used
            if other.lasted + lasted >= SLICE if other.tenant is tenant else ahead > lead:
                other.stop.press()
                return True
        return False

    def _give_up(self, turn: Turn) -> None:
        if turn in self._running:
            self._stop(turn)
            self._pass_on()
        elif turn in turn.tenant.waiting:
            turn.tenant.waiting.remove(turn)
            self._rouse(turn.tenant)

    def _tenant(self, name: str) -> Tenant:
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = Tenant(name)
        if not (tenant.running or tenant.waiting):
            tenant.used = max(tenant.used, self._now)
        return tenant

    def _start(self, turn: Turn) -> None:
        self._free -= 1
        self._now = max(self._now, turn.tenant.used)
        turn.tenant.running += 1
        self._running.add(turn)
        turn.began = self._clock()
        if turn.alarm is not None:
            turn.alarm.set()

    def _stop(self, turn: Turn) -> None:
        tenant = turn.tenant
        lasted = self._clock() - turn.began
        for payer in turn.payers:
            self._tenant(payer).used += lasted / len(turn.payers)
        self._free += 1
        tenant.running -= 1
        self._used += lasted
        turn.lasted += lasted
        self._running.discard(turn)
        if not (tenant.running or tenant.waiting) and tenant.used <= self._now:
            self._tenants.pop(tenant.name, None)  # its clock would be set forward

    def _pass_on(self) -> None:
        while self._free > 0:
            waiting = [tenant for tenant in self._tenants.values() if tenant.waiting]
            if not waiting:
                return
            self._start(self._next(min(waiting, key=lambda tenant: tenant.used)))

    def _next(self, tenant: Tenant) -> Turn:
        """Takes the next computation of a tenant from those that wait, and has the one after it look."""
        turn = tenant.waiting.popleft()
        self._rouse(tenant)
        return turn

    def _rouse(self, tenant: Tenant) -> None:
        if tenant.waiting and (alarm := tenant.waiting[0].alarm) is not None:
            alarm.set()
