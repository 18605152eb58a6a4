"""Memory as a budget that all sessions share."""

import threading
from collections import Counter
from collections.abc import Callable

from backwire_server.sessions.errors import OutOfMemory
from backwire_server.sessions.limits import LimitsOf, unlimited


class Budget:
    """The bytes that all sessions may hold together. May be used by several threads at once."""

    def __init__(
        self, limit: int, reclaim: Callable[[int], None] = lambda _: None, limits_of: LimitsOf = unlimited
    ) -> None:
        """Before it refuses so many bytes, it calls `reclaim`, which may have some given back."""
        self.limit = limit
        self._reclaim = reclaim
        self._limits_of = limits_of
        self._used = 0
        self._used_by: Counter[str] = Counter()
        self._mutex = threading.Lock()

    @property
    def used(self) -> int:
        """The bytes in use."""
        return self._used

    def account(self, tenant: str = "") -> "Account":
        """Returns a new account of a tenant, which holds nothing yet."""
        return Account(self, tenant)

    def take(self, nbytes: int, tenant: str, *, checked: bool) -> None:
        """Adds to what is in use; when checked, raises OutOfMemory, and adds nothing, if that would be too much."""
        if checked and self._used + nbytes > self.limit:
            self._reclaim(self._used + nbytes - self.limit)
        with self._mutex:
            if checked and nbytes > 0 and self._used + nbytes > self.limit:
                raise OutOfMemory(
                    f"{nbytes:,} more bytes are needed, but {self._used:,} of the {self.limit:,} that sessions may "
                    "hold are in use; delete sessions or passes that are not needed, or raise --max-total-bytes",
                    quota="max_total_bytes",
                )
            most = self._limits_of(tenant).tenant_max_bytes if checked and nbytes > 0 else None
            if most is not None and self._used_by[tenant] + nbytes > most:
                raise OutOfMemory(
                    f"{nbytes:,} more bytes are needed, but {self._used_by[tenant]:,} of the {most:,} that sessions of "
                    f"tenant {tenant!r} may hold are in use; delete sessions or passes that are not needed",
                    quota="tenant_max_bytes",
                )
            self._used += nbytes
            self._used_by[tenant] += nbytes


class Account:
    """One session's share of a budget. For one thread at a time.

    Growth is reserved before memory is taken; after that, whether it worked out or not, `settle` states what is held.
    """

    def __init__(self, budget: Budget, tenant: str) -> None:
        self._budget = budget
        self._tenant = tenant
        self._held = 0

    @property
    def held(self) -> int:
        """The bytes that are set aside or held; for any thread."""
        return self._held

    def reserve(self, nbytes: int) -> None:
        """Sets bytes aside; raises OutOfMemory when the budget does not have them."""
        self._budget.take(nbytes, self._tenant, checked=True)
        self._held += nbytes

    def give_back(self, nbytes: int) -> None:
        """Gives back what was set aside for a while."""
        self.settle(self._held - nbytes)

    def settle(self, nbytes: int) -> None:
        """States what the session holds now. Zero closes the account."""
        if nbytes != self._held:
            self._budget.take(nbytes - self._held, self._tenant, checked=False)
            self._held = nbytes
