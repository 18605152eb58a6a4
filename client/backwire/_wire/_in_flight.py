"""InFlight: the requests of a pipeline that were not answered yet, and what follows from answers, without any I/O."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from backwire._errors import BackwireError
from backwire._errors_service import ServerError
from backwire._wire._failures import failed_id, from_status
from backwire._wire._pipeline_messages import Answer, Request

REMEMBERED_ERRORS = 1_024
_ACCUMULATES = ("forward", "backward", "step", "zero_gradients")


@dataclass(slots=True)
class Entry:
    """A request that was sent.

    Attributes:
        number: Its number on the stream; the first is 1.
        request: The request.
        messages: What was sent, to send it again.
        future: Where its outcome goes.
        decode: What makes the outcome of the answer.
    """

    number: int
    request: Request
    messages: Sequence[bytes]
    future: Any
    decode: Callable[[Answer], Any]


class InFlight:
    """Requests in flight, in order. Those that share one between threads guard it.

    Attributes:
        entries: The requests by number.
        sent: How many requests there were so far.
        unanswered_since: Since when the first of them waits to be answered; None where there is none.
    """

    def __init__(self) -> None:
        self.entries: OrderedDict[int, Entry] = OrderedDict()
        self.sent = 0
        self.unanswered_since: float | None = None
        self._errors: OrderedDict[int, BackwireError] = OrderedDict()
        self._spoilt = self._last_failed = False

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return self.sent - len(self.entries)

    @property
    def repeatable(self) -> bool:
        """Whether all of them may be sent again, on a stream that does not know of earlier failures."""
        return not self.lost and all(entry.request.repeatable for entry in self.entries.values())

    @property
    def lost(self) -> bool:
        """Whether the first of them depends on a failure that another stream would not know of."""
        first = next(iter(self.entries.values()), None)
        return self._spoilt or (self._last_failed and first is not None and first.request.depends == "previous")

    @property
    def rest_waits(self) -> bool:
        """Whether none of those behind the first will be done if that fails."""
        return all(entry.request.depends == "previous" for entry in islice(self.entries.values(), 1, None))

    def add(self, entry: Entry) -> None:
        """Notes a request that is about to be sent."""
        self.sent = entry.number
        self.entries[entry.number] = entry
        self.unanswered_since = self.unanswered_since or time.monotonic()

    def first(self, answer: Answer) -> Entry:
        """Returns the request that this answers, the first; raises ServerError for another."""
        number, entry = next(iter(self.entries.items()), (0, None))
        if entry is None or number != answer.number:
            raise ServerError(f"the server answered request {answer.number} out of turn; upgrade it")
        return entry

    def outcome(self, entry: Entry, answer: Answer) -> tuple[Any, BackwireError | None]:
        """Returns what the answer makes of a request: a result, or an error."""
        if answer.error is not None:
            return None, self._failure(entry, answer)
        try:
            return entry.decode(answer), None
        except BackwireError as error:
            return None, error

    def done(self, entry: Entry, *, failed: bool) -> None:
        """Forgets a request that was answered, but not whether what follows depends on its failure."""
        request = entry.request
        if request.depends == "nothing":
            self._spoilt = False
        if failed and request.kind in _ACCUMULATES and request.request_id is not None:
            self._spoilt = True
        elif request.kind == "zero_gradients":
            self._spoilt = False
        self._last_failed = failed
        del self.entries[entry.number]
        self.unanswered_since = time.monotonic() if self.entries else None

    def _failure(self, entry: Entry, answer: Answer) -> BackwireError:
        assert answer.error is not None
        error = from_status(answer.error, entry.request.request_id)
        error.__cause__ = self._errors.get(failed_id(answer.error))
        self._errors[entry.number] = error
        if len(self._errors) > REMEMBERED_ERRORS:
            self._errors.popitem(last=False)
        return error


def for_request(error: BackwireError, request_id: str | None) -> BackwireError:
    """Returns the error that ended a stream, as the one of a request that was on its way."""
    hint = f"; whether this was done is not known: repeat it with request_id={request_id!r}" if request_id else ""
    told = type(error)(
        f"{error}{hint}", reason=error.reason, code=error.code, retry_after=error.retry_after, request_id=request_id
    )
    told.__cause__ = error
    return told
