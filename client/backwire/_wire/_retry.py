"""When and after how long a failed call is repeated; pure, so that every kind of client can share it."""

import math
import random
import threading
import time
from dataclasses import dataclass

from backwire._errors import BackwireError, Code, InvalidRequestError
from backwire._errors_service import OverloadedError
from backwire._wire._timeout import stood_still
from backwire_api.reasons import Reason

SOON = {Reason.WRONG_REPLICA, Reason.NO_WORKER}
"""Why a server refuses at once what another is about to take over; the waits for that do not grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How calls are repeated that the server could not take: exponential backoff with full jitter and a budget.

    A call is repeated when the connection breaks, when the server cannot be reached, and when it says that it cannot
    serve for now: it is overloaded, starting, ending, or its disk is full. By default a call so rides through the
    restart of a server of up to half a minute, within its own timeout. The wait before repetition `n` is drawn between
    zero and `min(maximum, initial * 2**(n - 1))` seconds, on top of what the server asks for; it does not grow while a
    server says that another is about to take the session over. A mutation is repeated
    under the same `request_id`, so it is applied once; without one it is not repeated when it may have been applied.

    Attributes:
        seconds: How long a call is repeated after it failed first; for a pipeline, after the last progress.
        attempts: The most times a call is sent, 1 or more; 1 means that nothing is repeated, None that time decides.
        first_contact: What stands for `seconds`, where that is longer, until the server has answered this client once:
            an address where nobody ever answered is more likely wrong.
        initial: The longest first wait in seconds.
        maximum: The longest wait in seconds.
        rate: The most repetitions in a second of all calls on a connection together. Each call that succeeds allows one
            more, and as many as come in a second may come at once.

    Example:
        >>> patient = bw.Retry(seconds=600, first_contact=600)
        >>> with bw.connect("localhost:50051", timeout=900, retry=patient):
        ...     pass
    """

    seconds: float = 45.0
    attempts: int | None = None
    first_contact: float = 5.0
    initial: float = 0.1
    maximum: float = 0.5
    rate: float = 20.0

    def __post_init__(self) -> None:
        most = math.inf if self.attempts is None else self.attempts
        if most < 1 or not 0 <= self.initial <= self.maximum or not (self.seconds >= 0 and self.first_contact >= 0):
            raise InvalidRequestError(
                f"{self} cannot work; give attempts >= 1, 0 <= initial <= maximum, and no negative seconds"
            )
        if not self.rate > 0:
            raise InvalidRequestError(f"{self} cannot work; give a rate above 0, math.inf for no limit", field="rate")


class Budget:
    """What the calls on a connection may repeat together: a bucket of tokens. May be used by several threads at once.

    A repetition takes a token, and waits until there is one. They come back at `rate` in a second and with every call
    that succeeds, up to as many as come in a second. So a server that is down is asked no more than this, however many
    threads call it.
    """

    def __init__(self, rate: float) -> None:
        self.reached = False
        self._rate = rate
        self._most = max(1.0, rate)
        self._tokens = self._most
        self._since = time.monotonic()
        self._mutex = threading.Lock()

    def succeeded(self) -> None:
        """Notes that the server did a call."""
        self.reached = True
        if self._tokens < self._most:
            with self._mutex:
                self._tokens = min(self._most, self._tokens + 1)

    def take(self, at_most: float) -> float | None:
        """Takes a token and returns the seconds until it is there; None, and takes none, when that is too long."""
        if math.isinf(self._rate):
            return 0.0
        with self._mutex:
            now = time.monotonic()
            self._tokens = min(self._most, self._tokens + (now - self._since) * self._rate)
            self._since = now
            wait = max(0.0, (1 - self._tokens) / self._rate)
            if wait > at_most:
                return None
            self._tokens -= 1
            return wait


class Attempts:
    """The time and the repetitions that one call has left."""

    def __init__(self, retry: Retry, budget: Budget, timeout: float) -> None:
        """Starts the clock: `timeout` seconds from now, infinity for no deadline."""
        self._retry = retry
        self._budget = budget
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._stood_still = False
        self._failed_at = math.inf
        self._failures = self._growing = 0

    @property
    def remaining(self) -> float | None:
        """The seconds until the deadline, at least zero; None when there is no deadline."""
        return None if math.isinf(self._deadline) else max(0.0, self._deadline - time.monotonic())

    def wait_before_retry(self, error: BackwireError, *, repeatable: bool) -> float | None:
        """Returns the seconds to wait before the call is sent again, or None when it must not or cannot be."""
        self._failures += 1
        anew = repeatable and self._begins_anew() and error.code is Code.DEADLINE_EXCEEDED
        if not (anew or is_transient(error, repeatable=repeatable)):
            return None
        if self._failures >= (self._retry.attempts or math.inf):
            return None
        if error.reason is not None:  # which only a server tells
            self._budget.reached = True
        left = self._seconds_left()
        self._growing += error.reason not in SOON
        wait = (error.retry_after or 0.0) + self._backoff(1 if error.reason in SOON else self._growing)
        token = self._budget.take(left) if wait < left else None
        return None if token is None else max(wait, token)

    def _begins_anew(self) -> bool:
        """Gives the call all of its time once more, if this process stood still when it was up; tells whether so."""
        if self._stood_still or not stood_still(self._deadline):
            return False
        self._stood_still, self._failed_at = True, math.inf
        self._deadline = time.monotonic() + self._timeout
        return True

    def _seconds_left(self) -> float:
        now = time.monotonic()
        self._failed_at = min(self._failed_at, now)
        patience = self._retry.seconds
        if not self._budget.reached:
            patience = min(patience, self._retry.first_contact)
        return min(self._failed_at + patience, self._deadline) - now

    def _backoff(self, failures: int) -> float:
        """Returns a random wait; full jitter spreads the clients of a server that comes back."""
        longest = min(self._retry.maximum, self._retry.initial * 2.0 ** min(failures - 1, 64))
        return random.uniform(0.0, longest)


def is_transient(error: BackwireError, *, repeatable: bool = True) -> bool:
    """Tells whether the same call may succeed later; `repeatable` where it may be sent though it may have been done."""
    return isinstance(error, OverloadedError) or (error.code is Code.UNAVAILABLE and repeatable)
