"""Memory as a budget that all sessions share."""

import threading
from collections.abc import Callable

from backwire_server.sessions.errors import OutOfMemory


class Budget:
    """The bytes that all sessions may hold together. May be used by several threads at once."""

    def __init__(self, limit: int, reclaim: Callable[[int], None] = lambda _: None) -> None:
        """Before it refuses so many bytes, it calls `reclaim`, which may have some given back."""
        self.limit = limit
        self._reclaim = reclaim
        self._used = 0
        self._mutex = threading.Lock()

    @property
    def used(self) -> int:
        """The bytes in use."""
        return self._used

    def account(self) -> "Account":
        """Returns a new account, which holds nothing yet."""
        return Account(self)

    def take(self, nbytes: int, *, checked: bool) -> None:
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
            self._used += nbytes


class Account:
    """One session's share of a budget. For one thread at a time.

    Growth is reserved before memory is taken; after that, whether it worked out or not, `settle` states what is held.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def reserve(self, nbytes: int) -> None:
        """Sets bytes aside; raises OutOfMemory when the budget does not have them."""
        self._budget.take(nbytes, checked=True)
        self._held += nbytes

    def settle(self, nbytes: int) -> None:
        """States what the session holds now. Zero closes the account."""
        self._budget.take(nbytes - self._held, checked=False)
        self._held = nbytes
