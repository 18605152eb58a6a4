"""Where a session is: whose turn it is, and whether it is in memory, on disk or gone."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from backwire_server.sessions.errors import SessionError, SessionNotFound, SessionQuarantined, StorageFailed
from backwire_server.sessions.history import History
from backwire_server.sessions.info import SessionInfo, Standing
from backwire_server.sessions.keeping.keeper import Keeper
from backwire_server.sessions.keeping.report import Report
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.status import SessionStatus
from backwire_server.sessions.turns.locks import FairLock, Signal

T = TypeVar("T")

_LOG = logging.getLogger("backwire.sessions")


class Residence:
    """What all calls on a session have in common; see `sessions.session` for what they do.

    Attributes:
        session_id: The session's id.
        last_used: When it was last used, in seconds since 1970.
        idle_since: The same by the monotonic clock.
    """

    def __init__(
        self, keeper: Keeper, limits: Limits, address: str = "", *, created: float, standing: Standing | None
    ) -> None:
        """Is what the keeper keeps; `standing` is where it stands, None while only its journal tells."""
        self.session_id = keeper.session_id
        self.last_used = time.time()
        self.idle_since = time.monotonic()
        self._keeper = keeper
        self._limits = limits
        self._report = Report(keeper, limits, address, created=created, standing=standing)
        self._turn = FairLock()
        self._changed = Signal()
        self._closed = False
        if keeper.awake:
            self._publish()

    def info(self) -> SessionInfo:
        """Returns what the session is and where it stands; does not wait for calls in progress.

        Raises Recovering while that is not known, SessionQuarantined when it cannot be.
        """
        return self._report.info(self.last_used)

    def standing(self, scope: CallScope) -> SessionInfo:
        """Returns what `info` does, once it is sure that no other server has the session, which might know better."""
        if self._keeper.shared:
            self.wake(scope)
        return self.info()

    def status(self) -> SessionStatus:
        """Returns how the session is doing, at once and in any state; that is no use of it."""
        return self._report.status(self.last_used)

    def branch(self, scope: CallScope, make: Callable[[Keeper], T]) -> T:
        """Returns what `make` makes of the keeper, which stays as it is meanwhile."""
        with self.my_turn(scope) as keeper:
            scope.check()
            return make(keeper)

    def move(self, scope: CallScope, replica: str) -> str:
        """Has another server have the session, as it is now, and returns where that is called.

        One that is not in memory is not made for that. Raises NotDurable, InvalidRequest when there is no such server,
        NoWorker when that may have stalled, and what opening its files raises.
        """
        with _Turn(self, scope, reading=False, waking=False, patient=True) as keeper:
            return keeper.hand_over(replica, scope.check)

    def close(self, scope: CallScope, discard: Callable[[], None] = lambda: None) -> None:
        """Ends the session after the calls before this one, and frees what it holds; `discard` removes its files."""
        with _Turn(self, scope, reading=True, waking=False):
            scope.check()
            self._keeper.forget()
            discard()
            self._end()

    def wake(self, scope: CallScope) -> None:
        """Has the session in memory, made from its files if need be; waits for whoever does that already."""
        with _Turn(self, scope, reading=False, patient=True):
            pass

    def touch(self) -> None:
        """Notes that the session is in use."""
        self.last_used, self.idle_since = time.time(), time.monotonic()

    def sweep(self) -> bool:
        """Drops passes that are too old, and the session itself if it was idle for too long; tells if it is closed.

        A durable session hibernates, others are closed. Does nothing while a call is in progress.
        """
        if not self._turn.try_acquire():
            return False
        try:
            if self._closed or not self._keeper.awake:
                return self._closed
            self._keeper.content.trainer.passes.expire()
            idle = time.monotonic() - self.idle_since
            if not self._keeper.durable:
                if self._limits.idle_ttl is not None and idle > self._limits.idle_ttl:
                    self._keeper.forget()
                    self._end()
            elif idle > self._limits.hibernate_after:
                self._hibernate()
            self._publish()
            return self._closed
        finally:
            self._turn.release()

    def hibernate(self) -> bool:
        """Writes the session out and drops it from memory, if it is durable and idle; tells whether that freed some."""
        if not self._turn.try_acquire():
            return False
        try:
            return self._keeper.awake and not self._closed and self._hibernate()
        finally:
            self._turn.release()

    def shorten_history(self) -> None:
        """Has the figures of its last steps take little memory, unless a call is in progress."""
        if self._turn.try_acquire():
            try:
                self.history.shorten()
            finally:
                self._turn.release()

    def shut(self) -> None:
        """Lets go of files before the process ends, after the calls in progress."""
        if self._turn.try_acquire():
            try:
                self._keeper.forget()
            finally:
                self._turn.release()

    @property
    def history(self) -> History:
        """What its last steps gave."""
        return self._report.history

    @property
    def durable(self) -> bool:
        """Whether it outlives the process."""
        return self._keeper.durable

    @property
    def awake(self) -> bool:
        """Whether it is in memory."""
        return self._keeper.awake

    @property
    def held(self) -> bool:
        """Whether it is in memory, and its files are in order and this server's still."""
        return self._keeper.awake and not self._keeper.broken

    @property
    def nbytes(self) -> int:
        """The bytes that it holds in memory."""
        return self._keeper.nbytes

    @property
    def quarantined(self) -> bool:
        """Whether its files were found damaged, so that it cannot be made from them."""
        return self._keeper.damage is not None

    @property
    def replay_bytes(self) -> int:
        """The bytes of its journal that follow its last checkpoint, as far as its files are open."""
        return self._keeper.replay_bytes

    def my_turn(self, scope: CallScope, *, reading: bool = False) -> "_Turn":
        """Returns the right to compute, as a context; `reading` promises to leave what `_publish` tells as it is."""
        return _Turn(self, scope, reading=reading)

    def _hibernate(self) -> bool:
        try:
            return self._keeper.hibernate()
        except SessionError as error:
            _LOG.warning("session %s stays in memory: %s", self.session_id, self._keeper.lost or error)
            return False

    def _begin(self, scope: CallScope, *, waking: bool, patient: bool) -> Keeper:
        self.touch()
        if waking and not patient and self._keeper.progress is not None:
            raise self._report.recovering()
        asked = time.perf_counter()
        scope.spent.began = scope.spent.began or asked
        self._turn.acquire(scope)
        scope.spent.queue += time.perf_counter() - asked
        try:
            if self._closed:
                raise SessionNotFound(f"session {self.session_id!r} was deleted; create a new one", field="session_id")
            scope.check()
            if self._keeper.broken:
                self._keeper.forget()
            woken = waking and not self._keeper.awake
            if woken:
                self._keeper.wake(scope.check)
            if woken or (waking and self._keeper.content.trainer.passes.expire()):
                self._publish()
        except BaseException:
            self._finish(reading=True)
            raise
        return self._keeper

    def _finish(self, *, reading: bool) -> None:
        try:
            self.touch()
            if not (reading or self._closed):
                self._publish()
        finally:
            self._turn.release()

    def _publish(self) -> None:
        """Brings what others see of this session up to date: its standing and the bytes it holds."""
        if self._keeper.awake:
            changed = self._report.publish()
            self._keeper.settle()
            if changed:
                self._changed.tell()

    def _end(self) -> None:
        self._closed = True
        self._changed.tell()


class _Turn:
    """A turn at a session. A class, since a generator as a context costs several times as much.

    `reading` is as in `Residence.my_turn`; without `waking` the session stays where it is; who is `patient` waits while
    it is recovered.
    """

    __slots__ = ("_began", "_patient", "_reading", "_scope", "_session", "_waking")

    def __init__(
        self, session: Residence, scope: CallScope, *, reading: bool, waking: bool = True, patient: bool = False
    ) -> None:
        self._session, self._scope = session, scope
        self._reading, self._waking, self._patient = reading, waking, patient

    def __enter__(self) -> Keeper:
        keeper = self._session._begin(self._scope, waking=self._waking, patient=self._patient)
        spent = self._scope.spent
        self._began = time.perf_counter() - spent.journal - spent.queue
        return keeper

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        spent = self._scope.spent
        spent.compute += time.perf_counter() - spent.journal - spent.queue - self._began
        try:
            lost = self._session._keeper.lost if isinstance(error, SessionQuarantined | StorageFailed) else None
        finally:
            self._session._finish(reading=self._reading)
        if lost is not None:  # so they seemed to be missing
            raise lost from error
