"""What each kind of request on a Pipeline stream does with its session, and how its result is told."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.rpc import status_pb2

from backwire_api import wire
from backwire_api.chunk_stream import encode_chunks
from backwire_api.tensors import Array, RawTensor
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages import calls as convert
from backwire_server.messages.durability import checkpoint_name, checkpoint_to_proto
from backwire_server.messages.request_keys import key_of
from backwire_server.messages.session import session_to_proto
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.errors import InvalidTensor
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.session import Session
from backwire_server.sessions.training.answering import ENVELOPE_BYTES

_MAPS = {"forward": "inputs", "train_step": "inputs", "backward": "output_gradients"}


@dataclass(frozen=True, slots=True)
class Act:
    """What does a request with its session; `batch` is the call whose inputs may be staged before."""

    do: Callable[[Session, CallScope], Any]
    batch: TrainCall | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request of some kind, its tensors beside it: those that came with it, and those that came in chunks before."""

    message: Any
    raw: Mapping[str, RawTensor]
    arrays: Mapping[str, Array] = field(default_factory=dict)
    checksums: Mapping[str, int] = field(default_factory=dict)

    def key(self) -> RequestKey | None:
        """Returns the key of the mutation, which does not tell how its tensors came."""
        return key_of(self.message, {**self.raw, **convert.tensors_to_proto(self.arrays)}, self.checksums)


def prepare(kind: str, request: Request) -> Act:
    """Returns what does the request; raises what is wrong with it whatever the state of its session."""
    for name in request.arrays:
        if kind not in _MAPS or name in request.raw:
            raise InvalidTensor(
                f"tensor {name!r} came in chunks, but the request has no place for it; send it once, and only with "
                "Forward, Backward or TrainStep",
                field="chunk.name",
            )
    return _PREPARE[kind](request)


def answer(request_id: int, kind: str, result: Any, most: int) -> Iterator[bytes]:
    """Yields the messages of an answer: chunks first when its tensors would not fit into `most` bytes of a message."""
    message, arrays = _TELL[kind](result)
    if arrays and sum(len(name) * 4 + array.nbytes + ENVELOPE_BYTES for name, array in arrays.items()) > most:
        for name, array in arrays.items():
            for head, data in encode_chunks(name, array):
                yield wire.encode(wire.Framed(pb.PipelineResponse(id=request_id, chunk=head), chunk=data))
        arrays = {}
    response = pb.PipelineResponse(id=request_id, **{kind: message})
    yield wire.encode(wire.Framed(response, convert.tensors_to_proto(arrays)))


def refusal(request_id: int, status: status_pb2.Status) -> bytes:
    """Returns the answer to a request that failed."""
    error = pb.PipelineError.FromString(status.SerializeToString())
    return pb.PipelineResponse(id=request_id, error=error).SerializeToString()


def _forward(request: Request) -> Act:
    training = convert.is_training(request.message)
    call = convert.forward_call(request.message, request.raw)
    call = replace(call, inputs={**call.inputs, **request.arrays}, chunked=True)
    if not training:
        return Act(lambda session, scope: session.evaluate(scope, call))
    lease, key = request.message.lease, request.key()
    return Act(lambda session, scope: session.forward(scope, call, key, lease=lease))


def _backward(request: Request) -> Act:
    call = convert.backward_call(request.message, request.raw)
    call = replace(call, output_gradients={**call.output_gradients, **request.arrays}, chunked=True)
    lease, key = request.message.lease, request.key()
    return Act(lambda session, scope: session.backward(scope, call, key, lease=lease))


def _step(request: Request) -> Act:
    options, lease, key = convert.step_options(request.message.options), request.message.lease, request.key()
    return Act(lambda session, scope: session.step(scope, options, key, lease=lease))


def _train_step(request: Request) -> Act:
    call = convert.train_call(request.message, request.raw)
    call = replace(call, inputs={**call.inputs, **request.arrays}, chunked=True)
    lease, key = request.message.lease, request.key()
    return Act(lambda session, scope: session.train_step(scope, call, key, lease=lease), call)


def _zero_gradients(request: Request) -> Act:
    lease, key = request.message.lease, request.key()
    return Act(lambda session, scope: session.zero_gradients(scope, key, lease=lease))


def _get_session(request: Request) -> Act:
    wanted = request.message.digest
    return Act(lambda session, scope: (session.digest(scope) if wanted else "", session.standing(scope)))


def _save_checkpoint(request: Request) -> Act:
    name, key = checkpoint_name(request.message.name), request.key()
    return Act(lambda session, scope: session.save_checkpoint(scope, name, key))


_PREPARE: Mapping[str, Callable[[Request], Act]] = {
    "forward": _forward,
    "backward": _backward,
    "step": _step,
    "train_step": _train_step,
    "zero_gradients": _zero_gradients,
    "get_session": _get_session,
    "save_checkpoint": _save_checkpoint,
}

_TELL: Mapping[str, Callable[[Any], tuple[Any, Mapping[str, Array]]]] = {
    "forward": lambda result: (convert.forward_response(result), result.outputs),
    "backward": lambda result: (convert.backward_response(result), result.input_gradients),
    "step": lambda result: (pb.StepResponse(result=convert.step_result(result)), {}),
    "train_step": lambda result: (convert.train_response(result), result.outputs),
    "zero_gradients": lambda result: (pb.ZeroGradientsResponse(contributions=result.count), {}),
    "get_session": lambda told: (pb.GetSessionResponse(digest=told[0], session=session_to_proto(told[1])), {}),
    "save_checkpoint": lambda info: (pb.SaveCheckpointResponse(checkpoint=checkpoint_to_proto(info)), {}),
}
