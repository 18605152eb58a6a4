"""When and after how long a failed call is repeated; pure, so that every kind of client can share it."""

import math
import random
import time
from dataclasses import dataclass

from backwire._errors import BackwireError, InvalidRequestError, OverloadedError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How calls are repeated that the server could not take: exponential backoff with jitter, within the deadline.

    A call is repeated when the server cannot be reached or says that it is overloaded; the wait before repetition `n`
    is between one half and the whole of `min(maximum, initial * 2**(n - 1))` seconds, and never less than what the
    server asks for. A mutation is repeated under the same `request_id`, so it is applied once.

    Attributes:
        attempts: The most times a call is sent, 1 or more; 1 means that nothing is repeated.
        initial: The first wait in seconds.
        maximum: The longest wait in seconds.

    Example:
        >>> patient = bw.Retry(attempts=20, maximum=30.0)
        >>> with bw.connect("localhost:50051", timeout=600, retry=patient):
        ...     pass
    """

    attempts: int = 6
    initial: float = 0.1
    maximum: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.initial <= self.maximum:
            raise InvalidRequestError(f"{self} cannot work; give attempts >= 1 and 0 <= initial <= maximum")


class Budget:
    """The time and attempts that one call has left."""

    def __init__(self, retry: Retry, timeout: float) -> None:
        """Starts the clock: `timeout` seconds from now, infinity for no deadline."""
        self._retry = retry
        self._deadline = time.monotonic() + timeout
        self._failures = 0

    @property
    def remaining(self) -> float | None:
        """The seconds until the deadline, at least zero; None when there is no deadline."""
        return None if math.isinf(self._deadline) else max(0.0, self._deadline - time.monotonic())

    def wait_before_retry(self, error: BackwireError, *, repeatable: bool) -> float | None:
        """Returns the seconds to wait before the call is sent again, or None when it must not or cannot be."""
        self._failures += 1
        transient = isinstance(error, OverloadedError) or (isinstance(error, UnavailableError) and repeatable)
        if not transient or self._failures >= self._retry.attempts:
            return None
        backoff = min(self._retry.maximum, self._retry.initial * 2 ** (self._failures - 1))
        wait = max(error.retry_after or 0.0, backoff * random.uniform(0.5, 1.0))
        return wait if self.remaining is None or wait < self.remaining else None
