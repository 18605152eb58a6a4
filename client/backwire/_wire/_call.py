"""Call: what is sent to the server and what is made of the answer, without any I/O."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from backwire._wire._pipeline_messages import Answer, Depends, Request
from backwire_api.wire import Framed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A call with one request and one response.

    Attributes:
        rpc: The name of the method.
        request: The message.
        read: What is made of the response.
        request_id: None for a call that changes nothing, empty for a mutation without protection against repetition.
    """

    rpc: str
    request: Any
    read: Callable[[Any], T]
    request_id: str | None = None

    def piped(self, depends: Depends) -> tuple[Request, Callable[[Answer], T]]:
        """Returns the same as a request of a pipeline, and what is made of its answer."""
        read = self.read
        return (
            Request(_kind(self.rpc), Framed(self.request), depends, self.request_id),
            lambda answer: read(answer.message),
        )


@dataclass(frozen=True, slots=True)
class TensorCall(Generic[T]):
    """A call that may have tensors, in one message each way or in chunks.

    Attributes:
        kind: Its name in PipelineRequest.
        request: The message, with tensors beside it.
        read: What is made of the answer.
        request_id: See `Call`.
    """

    kind: str
    request: Framed[Any]
    read: Callable[[Answer], T]
    request_id: str | None = None

    def piped(self, depends: Depends) -> tuple[Request, Callable[[Answer], T]]:
        """Returns the same as a request of a pipeline, and what is made of its answer."""
        return Request(self.kind, self.request, depends, self.request_id), self.read


@dataclass(frozen=True, slots=True)
class Download(Generic[T]):
    """A call whose answer comes in parts, of which `read` makes the result."""

    rpc: str
    request: Any
    read: Callable[[Iterable[Any]], T]


@dataclass(frozen=True, slots=True)
class Upload(Generic[T]):
    """A call whose request goes in parts, which `requests` makes anew for every attempt."""

    rpc: str
    requests: Callable[[], Iterator[Any]]
    read: Callable[[Any], T]
    request_id: str


def _kind(rpc: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()
