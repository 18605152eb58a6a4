"""Remembers mutations by their request ids, so that a repetition is answered and not applied again."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, overload

from backwire_server.sessions.errors import RequestIdReused, ResultNotRetained

WINDOW = 1_024
MAX_ANSWER_BYTES = 64 << 20


class Answer(Protocol):
    """What a mutation returned."""

    @property
    def nbytes(self) -> int:
        """The bytes that keeping it costs."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Names an intended mutation: its id, and a digest of all else that the request says."""

    request_id: str
    fingerprint: bytes


@overload
def of_tenant(key: RequestKey, tenant: str) -> RequestKey: ...
@overload
def of_tenant(key: None, tenant: str) -> None: ...
@overload
def of_tenant(key: RequestKey | None, tenant: str) -> RequestKey | None: ...
def of_tenant(key: RequestKey | None, tenant: str) -> RequestKey | None:
    """Returns the key by which a tenant's request is remembered among those of all; each tenant has ids of its own."""
    return None if key is None else RequestKey(f"{tenant}/{key.request_id}", key.fingerprint)


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    answer: Any
    nbytes: int


class RequestLog:
    """The last mutations that had a request id: up to WINDOW of them, with up to MAX_ANSWER_BYTES of answers.

    Where answers do not fit, the oldest are dropped first, and their mutations stay known. For one thread at a time.
    """

    def __init__(self, window: int = WINDOW, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._window = window
        self._max_answer_bytes = max_answer_bytes
        self.nbytes = 0

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def entries(self) -> Iterator[tuple[RequestKey, Any]]:
        """Yields the mutations that are known, oldest first, each with its answer; None where that was dropped."""
        for request_id, entry in self._entries.items():
            yield RequestKey(request_id, entry.fingerprint), entry.answer

    def know(self, key: RequestKey, answer: Any) -> None:
        """Remembers what `entries` of another log yielded."""
        self._record(key, answer, 0 if answer is None else answer.nbytes)

    def find(self, key: RequestKey | None) -> Any:
        """Returns the answer if this mutation was applied before, else None.

        Raises RequestIdReused when another request had this id, ResultNotRetained when only the answer is gone.
        """
        entry = self._entries.get(key.request_id) if key else None
        if key is None or entry is None:
            return None
        if entry.fingerprint != key.fingerprint:
            raise RequestIdReused(
                f"request_id {key.request_id!r} was used for a request with another content; draw a new id for every "
                "intended mutation",
                field="request_id",
            )
        if entry.answer is None:
            raise ResultNotRetained(
                f"the request {key.request_id!r} was applied before, but its answer is no longer kept; do not repeat "
                "it, read the state that you need",
                field="request_id",
            )
        return entry.answer

    def record(self, key: RequestKey | None, answer: Answer) -> None:
        """Remembers that the mutation was applied with this answer."""
        if key is not None:
            self._record(key, answer, answer.nbytes)

    def _record(self, key: RequestKey, answer: Any, nbytes: int) -> None:
        self._entries[key.request_id] = _Entry(key.fingerprint, answer, nbytes)
        self.nbytes += nbytes
        if len(self._entries) > self._window:
            self.nbytes -= self._entries.popitem(last=False)[1].nbytes
        self._drop_answers()

    def _drop_answers(self) -> None:
        oldest = iter(self._entries.values())
        while self.nbytes > self._max_answer_bytes:
            entry = next(oldest)
            if entry.nbytes:
                self.nbytes -= entry.nbytes
                entry.answer, entry.nbytes = None, 0
