"""The right to change a session, which one client at a time may have for itself."""

import time
from collections.abc import Callable

from backwire_server.sessions.calls import LeaseCall, LeaseResult
from backwire_server.sessions.errors import LeaseHeld, WriterFenced


class WriterLease:
    """Who may write to a session. For one thread at a time.

    Attributes:
        last: The last lease that was given or given back; None when there was none.
    """

    def __init__(self, last: LeaseCall | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Goes on from what was, with the holder heard of just now."""
        self.last = last
        self._clock = clock
        self._heard = clock()

    @property
    def current(self) -> LeaseCall | None:
        """The lease under which alone may be written; None when everybody may."""
        return self.last if self.last is not None and self.last.holder else None

    def check(self, number: int) -> None:
        """Notes that the holder was heard of; raises WriterFenced unless this is the number of the current lease.

        Where there is none, it must be 0: the number of a lease that is over belongs to a writer who was replaced.
        """
        current = self.current
        if number == (current.number if current else 0):
            self._heard = self._clock()
            return
        if current is None:
            raise WriterFenced(
                f"lease {number} is over; attach again to be the only writer, or write without a lease", field="lease"
            )
        raise WriterFenced(
            f"{current.holder!r} is the only writer, under lease {current.number}; this call has "
            f"{f'lease {number}' if number else 'none'}: attach to the session first",
            field="lease",
        )

    def next(self, holder: str, seconds: float, *, take_over: bool) -> LeaseCall:
        """Returns the lease that the holder would get; raises LeaseHeld while another's is alive, unless taken over."""
        current = self.current
        if current is not None and not take_over:
            left = self._heard + current.seconds - self._clock()
            if left > 0:
                raise LeaseHeld(
                    f"{current.holder!r} holds lease {current.number} and was heard of less than {current.seconds:g} s "
                    "ago; attach later, or take the lease over",
                    field="take_over",
                    retry_after=left,
                )
        return LeaseCall(1 if self.last is None else self.last.number + 1, holder, seconds)

    def ending(self, number: int) -> LeaseCall:
        """Returns the call that gives the current lease back; raises WriterFenced unless it has this number."""
        if self.current is None or self.current.number != number:
            raise WriterFenced(
                f"lease {number} is not the current one; it ran out, was taken over or given back", field="number"
            )
        return LeaseCall(number, "", 0.0)

    def apply(self, call: LeaseCall) -> LeaseResult:
        """Gives a lease, or takes it back."""
        self.last = call
        self._heard = self._clock()
        return LeaseResult(call.number, call.holder, call.seconds)
