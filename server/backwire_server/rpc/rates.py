"""How much of the server each tenant may use in a second, and all of them together."""

import threading
import time
from collections.abc import Callable

from backwire_server.sessions.errors import Overloaded
from backwire_server.sessions.limits import UNLIMITED, LimitsOf, TenantLimits, unlimited

CALLS_RATE, BYTES_RATE, FLOPS_RATE = "tenant_calls_per_second", "tenant_bytes_per_second", "tenant_flops_per_second"
SERVER_RATE = "max_calls_per_second"


class Bucket:
    """What may be used at a rate: what a second brings may be used at once, or later.

    More may be taken than there is; then nothing more can be until that is made up for.
    """

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = self._left = rate
        self._since = now

    def wait(self, now: float) -> float:
        """Returns the seconds until something may be taken, 0 for at once."""
        self._left = min(self._rate, self._left + (now - self._since) * self._rate)
        self._since = now
        return 0.0 if self._left > 0 else (1e-3 - self._left / self._rate)

    def take(self, amount: float) -> None:
        """Takes so much."""
        self._left -= amount


class Rates:
    """The rates of all tenants. May be used by several threads at once."""

    def __init__(
        self,
        limits_of: LimitsOf = unlimited,
        max_calls_per_second: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Holds each tenant to its limits, whatever they are at the time, and all to a number of calls."""
        self._limits_of = limits_of
        self._clock = clock
        self._mutex = threading.Lock()
        self._all = None if max_calls_per_second is None else Bucket(max_calls_per_second, clock())
        self._tenants: dict[str, tuple[TenantLimits, dict[str, Bucket]]] = {}

    def begin(self, tenant: str) -> None:
        """Counts a call; raises Overloaded when the tenant, or all together, have used up what they may."""
        if self._all is None and self._limits_of(tenant) == UNLIMITED:
            return
        with self._mutex:
            now = self._clock()
            buckets = self._buckets(tenant, now)
            for quota, bucket in buckets.items():
                if seconds := bucket.wait(now):
                    raise _too_fast(f"tenant {tenant!r} has used up its", quota, seconds)
            if self._all is not None:
                if seconds := self._all.wait(now):
                    raise _too_fast("all calls together have used up the", SERVER_RATE, seconds)
                self._all.take(1)
            if (calls := buckets.get(CALLS_RATE)) is not None:
                calls.take(1)

    def received(self, tenant: str, nbytes: int) -> None:
        """Counts bytes of requests that the tenant sent; what is too much keeps it from its next call."""
        if self._limits_of(tenant).tenant_bytes_per_second is None:
            return
        with self._mutex:
            if (bucket := self._buckets(tenant, self._clock()).get(BYTES_RATE)) is not None:
                bucket.take(nbytes)

    def compute(self, tenant: str, flops: int, *, begun: bool = False) -> None:
        """Counts what is about to be computed; raises Overloaded when the tenant has used up what it may.

        A call that has begun to compute may go on.
        """
        if self._limits_of(tenant).tenant_flops_per_second is None:
            return
        with self._mutex:
            now = self._clock()
            if (bucket := self._buckets(tenant, now).get(FLOPS_RATE)) is not None:
                if not begun and (seconds := bucket.wait(now)):
                    raise _too_fast(f"tenant {tenant!r} has used up its", FLOPS_RATE, seconds)
                bucket.take(flops)

    def _buckets(self, tenant: str, now: float) -> dict[str, Bucket]:
        limits = self._limits_of(tenant)
        known = self._tenants.get(tenant)
        if known is not None and known[0] == limits:
            return known[1]
        rates = {name: getattr(limits, name) for name in (CALLS_RATE, BYTES_RATE, FLOPS_RATE)}
        buckets = {name: Bucket(rate, now) for name, rate in rates.items() if rate is not None}
        self._tenants[tenant] = limits, buckets
        return buckets


class Charge:
    """Charges a tenant for what one call computes."""

    __slots__ = ("_begun", "_rates", "_tenant")

    def __init__(self, rates: Rates, tenant: str) -> None:
        self._rates, self._tenant = rates, tenant
        self._begun = False

    def __call__(self, flops: int) -> None:
        """As `Rates.compute`."""
        self._rates.compute(self._tenant, flops, begun=self._begun)
        self._begun = True


def _too_fast(whose: str, quota: str, seconds: float) -> Overloaded:
    return Overloaded(f"{whose} {quota}; call again in {seconds:.3g} s", retry_after=seconds, quota=quota)
