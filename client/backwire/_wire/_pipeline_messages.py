"""Requests and answers of a Pipeline stream, without any I/O: what is too large for a message goes in chunks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from backwire._errors import Code, InvalidRequestError
from backwire._errors_service import ServerError
from backwire_api import chunk_stream, tensors, wire
from backwire_api.chunk_stream import Assembler
from backwire_api.tensors import RawTensor
from backwire_api.v1 import gradient_service_pb2 as service_pb2

Depends = Literal["implied", "previous", "nothing"]

ENVELOPE_BYTES = 1_024  # what a tensor's name, shape and framing add to its bytes, at most, besides the name
UNLIMITED = 1 << 62

_DEPENDENCIES = {
    "implied": service_pb2.DEPENDENCY_IMPLIED,
    "previous": service_pb2.DEPENDENCY_PREVIOUS,
    "nothing": service_pb2.DEPENDENCY_NONE,
}


@dataclass(slots=True)
class Request:
    """A request that can be sent, and sent again.

    Attributes:
        kind: Its name in PipelineRequest's oneof.
        framed: The message, tensors beside it.
        depends: What it depends on.
        request_id: The id of the mutation; None for a request that changes nothing.
    """

    kind: str
    framed: wire.Framed[Any]
    depends: Depends = "implied"
    request_id: str | None = None

    def __post_init__(self) -> None:
        if self.depends not in _DEPENDENCIES:
            known = ", ".join(map(repr, _DEPENDENCIES))
            raise InvalidRequestError(f"depends={self.depends!r} is unknown; use one of {known}", field="depends")

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again when it may have been done already."""
        return self.request_id != ""

    def messages(self, number: int, limit: int) -> Iterator[bytes]:
        """Yields the messages to send under an id, which have no more than `limit` bytes of tensors each."""
        tensors_ = self.framed.tensors
        if tensors_ and not fits(tensors_, limit):
            for name, tensor in tensors_.items():
                for chunk in chunk_stream.encode_chunks(name, tensors.decode(tensor)):
                    message = service_pb2.PipelineRequest(id=number, chunk=chunk.head)
                    yield wire.encode(wire.Framed(message, chunk=chunk.data))
            tensors_ = {}
        message = service_pb2.PipelineRequest(
            id=number,
            dependency=_DEPENDENCIES[self.depends],
            max_response_bytes=limit if limit < UNLIMITED else 0,
            **{self.kind: self.framed.message},
        )
        yield wire.encode(wire.Framed(message, tensors_))


@dataclass(slots=True)
class Answer:
    """The answer to a request: the message and its tensors beside it, or the error that it failed with.

    `number` is that of the request on its stream.
    """

    message: Any
    arrays: dict[str, tensors.Array] = field(default_factory=dict)
    error: status_pb2.Status | None = None
    number: int = 0


class AnswerReader:
    """Turns the messages of one stream into answers, in order; raises ServerError for what makes no sense."""

    def __init__(self) -> None:
        self._chunks: Assembler | None = None

    def read(self, data: bytes) -> Answer | None:
        """Returns the answer in a message; None for a part of one."""
        try:
            framed = wire.decode(service_pb2.PipelineResponse, data)
            message = framed.message
            kind = message.WhichOneof("kind")
            if kind == "chunk":
                self._chunks = self._chunks or Assembler(UNLIMITED)
                self._chunks.add(message.chunk, framed.chunk)
                return None
            arrays = self._chunks.finish() if self._chunks else {}
            arrays.update((name, tensors.decode(tensor)) for name, tensor in framed.tensors.items())
        except (DecodeError, tensors.TensorError) as error:
            raise ServerError(f"the server sent an answer that cannot be read: {error}", code=Code.DATA_LOSS) from None
        self._chunks = None
        if kind == "error":
            status = status_pb2.Status.FromString(message.error.SerializeToString())
            return Answer(None, error=status, number=message.id)
        for array in arrays.values():
            array.flags.writeable = False
        return Answer(getattr(message, str(kind)), dict(sorted(arrays.items())), number=message.id)


def fits(tensors_: Mapping[str, RawTensor], limit: int) -> bool:
    """Tells whether a message of `limit` bytes has room for the tensors."""
    return sum(len(name) * 4 + len(tensor.data) + ENVELOPE_BYTES for name, tensor in tensors_.items()) <= limit


def checked_depth(depth: int) -> int:
    """Returns how many requests may be in flight; raises InvalidRequestError for none."""
    if depth < 1:
        raise InvalidRequestError(f"depth={depth} lets nothing be sent; use 1 or more", field="depth")
    return depth
