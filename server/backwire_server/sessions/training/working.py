"""What a call may compute, and the memory that it has for that."""

from backwire_server.engine.cost import Cost
from backwire_server.sessions.budget import Account
from backwire_server.sessions.errors import CallTooLarge
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import CallStop


class Working:
    """Sets aside the memory for computations that a call does one after another; a context, which gives it back."""

    __slots__ = ("_account", "_lent", "_limits", "_stop")

    def __init__(self, limits: Limits, account: Account, stop: CallStop) -> None:
        self._limits, self._account, self._stop = limits, account, stop
        self._lent = 0

    def __enter__(self) -> "Working":
        return self

    def __exit__(self, *_: object) -> None:
        self._account.give_back(self._lent)

    def __call__(self, cost: Cost) -> None:
        """Admits a computation, and has the caller charged for its work.

        Raises CallTooLarge, OutOfMemory, and what says that the caller has used up its share.
        """
        _check("max_call_flops", "floating-point operations", cost.flops, self._limits.max_call_flops)
        _check("max_call_bytes", "bytes to compute in", cost.nbytes, self._limits.max_call_bytes)
        if cost.nbytes > self._lent:  # what was lent for the computation before serves for this one, too
            self._account.reserve(cost.nbytes - self._lent)
            self._lent = cost.nbytes
        self._stop.charge(cost.flops)


def _check(quota: str, what: str, value: int, limit: int | None) -> None:
    if limit is not None and value > limit:
        raise CallTooLarge(
            f"the call takes {value:,} {what}, but the limit is {limit:,}; use a smaller batch or model", quota=quota
        )
