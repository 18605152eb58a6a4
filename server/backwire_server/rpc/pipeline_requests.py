"""Reads the messages of a Pipeline stream: chunks become tensors, and requests become work that can be done."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError

from backwire_api import wire
from backwire_api.chunk_stream import Assembler
from backwire_api.tensors import TensorError
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.tensor_limits import check_chunk, check_tensors
from backwire_server.rpc.pipeline_calls import Act, Request, prepare
from backwire_server.sessions.errors import InvalidRequest, InvalidTensor
from backwire_server.sessions.limits import Limits

OVERHEAD_BYTES = 1_024  # what a message costs besides its bytes, so that many small ones count, too
DEPENDENCIES = frozenset(pb.Dependency.values())


@dataclass(slots=True)
class Work:
    """A request of the stream, read and checked as far as that goes without its session.

    Attributes:
        id: The client's id.
        kind: The name of the request in PipelineRequest's oneof.
        session_id: The session that it is for.
        forward_id: The pass that it makes or differentiates, where it names one.
        dependency: The number of its Dependency.
        mutates: Whether it changes the session.
        max_response_bytes: The most bytes of tensors in one message of the answer.
        act: Does it, and returns the result.
        error: Why it cannot be done, instead of `act`.
        nbytes: The bytes of the request that are counted until it is answered.
    """

    id: int
    kind: str
    session_id: str = ""
    forward_id: str = ""
    dependency: int = 0
    mutates: bool = True
    max_response_bytes: int = 0
    act: Act | None = None
    error: Exception | None = None
    nbytes: int = 0


class Reader:
    """Turns the messages of one stream into work, in order.

    Raises InvalidRequest for what leaves the stream without sense. What is wrong with one request becomes its error.
    `take` is asked for the bytes of each request, and may raise to refuse it.
    """

    def __init__(self, limits: Limits, take: Callable[[int], None]) -> None:
        self._limits = limits
        self._take = take
        self._last_id = 0
        self._chunks: _Chunks | None = None

    def read(self, data: bytes) -> Work | None:
        """Returns the request in a message; None for a chunk."""
        try:
            framed = wire.decode(pb.PipelineRequest, data)
        except DecodeError as error:
            raise InvalidRequest(f"a message is no PipelineRequest: {error}; encode it by the contract") from None
        message = framed.message
        kind = message.WhichOneof("kind")
        chunks = self._pending(message.id)
        if kind == "chunk":
            self._add(chunks or self._begin(message.id), message.chunk, framed.chunk)
            return None
        self._last_id, self._chunks = message.id, None
        if kind is None:
            unknown = InvalidRequest(
                "no request is set, or one that this server does not know; set `kind`", field="kind"
            )
            return Work(message.id, "", error=unknown)
        return self._work(framed, kind, len(data), chunks)

    def end(self) -> None:
        """Checks that the stream may end here."""
        if self._chunks is not None:
            raise InvalidRequest(f"the stream ended before the request {self._chunks.id} whose chunks it had; send it")

    def _pending(self, message_id: int) -> "_Chunks | None":
        """Returns the chunks before this message that belong to it; raises InvalidRequest for an id out of order."""
        if self._chunks is not None and message_id != self._chunks.id:
            raise InvalidRequest(
                f"message {message_id} comes before the request {self._chunks.id} whose chunks came; send that first",
                field="id",
            )
        if message_id <= self._last_id:
            raise InvalidRequest(
                f"id {message_id} is not above {self._last_id}, the one before it; number requests upwards from 1",
                field="id",
            )
        return self._chunks

    def _begin(self, message_id: int) -> "_Chunks":
        self._chunks = _Chunks(message_id, Assembler(self._limits.max_pass_bytes))
        return self._chunks

    def _add(self, chunks: "_Chunks", chunk: Any, data: Any) -> None:
        if chunks.error is not None:
            return
        try:
            check_chunk(chunk, self._limits)
            nbytes = len(data) + OVERHEAD_BYTES
            self._take(nbytes)
            chunks.taken += nbytes
            chunks.tensors.add(chunk, data)
        except Exception as error:
            chunks.error = error
            chunks.tensors = Assembler(0)  # lets go of what came

    def _work(self, framed: wire.Framed[pb.PipelineRequest], kind: str, nbytes: int, chunks: "_Chunks | None") -> Work:
        message = framed.message
        request = getattr(message, kind)
        work = Work(message.id, kind, request.session_id, getattr(request, "forward_id", ""), message.dependency)
        work.mutates = kind != "get_session" and not (kind == "forward" and request.mode == pb.MODE_EVAL)
        most = self._limits.max_message_bytes
        work.max_response_bytes = most if message.max_response_bytes <= 0 else min(message.max_response_bytes, most)
        if chunks is not None:
            work.nbytes = chunks.taken
        try:
            if message.dependency not in DEPENDENCIES:
                raise InvalidRequest(
                    f"dependency has the unknown number {message.dependency}; use one of the contract",
                    field="dependency",
                )
            self._take(nbytes + OVERHEAD_BYTES)
            work.nbytes += nbytes + OVERHEAD_BYTES
            check_tensors(framed.tensors, self._limits)
            found = Request(request, framed.tensors)
            work.act = prepare(kind, found if chunks is None else chunks.complete(found))
        except Exception as error:
            work.error = error
        return work


class _Chunks:
    """The tensors that came before the request that they belong to, or why it will fail."""

    def __init__(self, message_id: int, tensors: Assembler) -> None:
        self.id = message_id
        self.tensors = tensors
        self.taken = 0
        self.error: Exception | None = None

    def complete(self, request: Request) -> Request:
        """Returns the request with these tensors; raises what is wrong with them."""
        if self.error is not None:
            raise self.error
        try:
            return replace(request, arrays=self.tensors.finish(), checksums=self.tensors.checksums)
        except TensorError as error:
            raise InvalidTensor(str(error), field="chunk") from None
