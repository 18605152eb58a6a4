"""The right of a call to compute on one of the processors, which it may have to wait for; see `Processors`."""

import math
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backwire_server.sessions.scope import CallScope, CallStop

if TYPE_CHECKING:
    from backwire_server.sessions.turns.processors import Processors


class Tenant:
    """The clock of a tenant, and what it has computing and waiting."""

    __slots__ = ("name", "running", "used", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.used = 0.0
        self.running = 0
        self.waiting: deque[Turn] = deque()


class Turn:
    """The right of a call to compute; a class, since a generator as a context costs several times as much.

    Attributes:
        scope: The call.
        stop: What makes it stop, and give way.
        tenant: Whose it is, once it was asked for.
        began: When it began last.
        lasted: For how long it computed before that, since it last let others of its tenant go first.
        alarm: Is set when it may go on, or is the next of its tenant; None when it never had to wait.
        excused: Whether it need not wait, since another computes it: to enter it takes no processor then.
        writes: Since when it writes to the disk, by `time.perf_counter`; infinity while it does not.
        payers: The tenants whose calls it computes, each as often as it has calls.
    """

    __slots__ = ("_processors", "alarm", "began", "excused", "lasted", "payers", "scope", "stop", "tenant", "writes")

    def __init__(self, processors: "Processors", scope: CallScope) -> None:
        self._processors = processors
        self.scope = scope
        self.stop: CallStop = scope.stop
        self.tenant: Tenant
        self.began = self.lasted = 0.0
        self.alarm: threading.Event | None = None
        self.excused = False
        self.writes = math.inf
        self.payers: Sequence[str] = (scope.caller.tenant,)

    @property
    def held(self) -> bool:
        """Whether it has been entered, with a processor."""
        return self._processors.holds(self)

    def excuse(self) -> None:
        """Ends the waiting for it, if it is waited for, and does away with the need to; by any thread."""
        self._processors.excuse(self)

    def anew(self) -> "Turn":
        """Returns a turn for the same call, which was not entered or excused yet."""
        return Turn(self._processors, self.scope)

    def __enter__(self) -> CallStop:
        self._processors.begin(self)
        self.stop.turn = self
        return self.stop

    def __exit__(self, *_: object) -> None:
        self.stop.turn = None
        self._processors.end(self)

    def give_way(self) -> None:
        """Lets others compute, and returns when this may go on; raises what `scope.check` raises."""
        self._processors.give_way(self)
