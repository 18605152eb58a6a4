"""What the clients of a soak count, in memory that all of their processes share."""

from collections.abc import Sequence
from multiprocessing.sharedctypes import RawArray
from typing import Any

import backwire as bw
from backwire_api.reasons import Reason

CANCELLED = "cancelled in flight"
HOPELESS = "hopeless deadlines"
DROPPED = "connections dropped"
ABANDONED = "pipelines abandoned"
HAPPENINGS = (CANCELLED, HOPELESS, DROPPED, ABANDONED)

KILLED = "clients killed"
STORIES = "stories judged"
CALLS, GOOD, WRONG = "calls", "good", "violations"
OTHER = "OTHER"
REFUSALS = (*(reason.value for reason in Reason), OTHER)
COLUMNS = (CALLS, GOOD, STORIES, WRONG, *HAPPENINGS, *REFUSALS)
_PLACES = {name: place for place, name in enumerate(COLUMNS)}


class Board:
    """A row of counts for every client, which alone writes it, so that one which is killed leaves it whole."""

    def __init__(self, clients: int) -> None:
        """Begins with zeros."""
        self._counts: Any = RawArray("q", clients * len(COLUMNS))

    def count(self, client: int, name: str, number: int = 1) -> None:
        """Adds to a count of a client."""
        self._counts[client * len(COLUMNS) + _PLACES[name]] += number

    def total(self, name: str) -> int:
        """Returns a count of all clients together."""
        return sum(self._counts[_PLACES[name] :: len(COLUMNS)])

    def totals(self, names: Sequence[str]) -> dict[str, int]:
        """Returns those of these counts that are not zero."""
        return {name: found for name in names if (found := self.total(name))}


def reason_of(error: bw.BackwireError) -> str:
    """Returns the name that a refusal is counted under."""
    reason = error.reason
    return OTHER if reason is None or reason not in REFUSALS else str(reason)
