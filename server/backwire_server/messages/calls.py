"""Calls from requests, and responses from results."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TypeVar

from backwire_api import tensors
from backwire_api.chunk_stream import Assembler
from backwire_api.tensors import RawTensor
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.wire import Framed
from backwire_server.messages.request_keys import checked_id
from backwire_server.sessions.calls import (
    BackwardCall,
    BackwardResult,
    ForwardCall,
    ForwardResult,
    NonFinitePolicy,
    StepOptions,
    StepResult,
    TrainCall,
    TrainResult,
)
from backwire_server.sessions.errors import InvalidRequest, InvalidTensor
from backwire_server.sessions.session import Session
from backwire_server.sessions.training.accumulator import Normalization
from backwire_server.sessions.training.versions import Array

N = TypeVar("N", bound=int)
T = TypeVar("T")
RawTensors = Mapping[str, RawTensor]
SetRequest = Framed[pb.SetParametersRequest]
NOTHING: RawTensors = MappingProxyType({})

_TRAINING = {pb.MODE_UNSPECIFIED: True, pb.MODE_TRAIN: True, pb.MODE_EVAL: False}
_POLICIES = {
    pb.NON_FINITE_POLICY_UNSPECIFIED: NonFinitePolicy.REJECT,
    pb.NON_FINITE_POLICY_REJECT: NonFinitePolicy.REJECT,
    pb.NON_FINITE_POLICY_SKIP: NonFinitePolicy.SKIP,
    pb.NON_FINITE_POLICY_ALLOW: NonFinitePolicy.ALLOW,
}
_NORMALIZATIONS = {
    pb.GRADIENT_NORMALIZATION_UNSPECIFIED: Normalization.SUM,
    pb.GRADIENT_NORMALIZATION_SUM: Normalization.SUM,
    pb.GRADIENT_NORMALIZATION_MEAN: Normalization.MEAN,
}


def is_training(request: pb.ForwardRequest) -> bool:
    """Tells whether the pass is to be kept; raises InvalidRequest for a mode that does not exist."""
    return known(_TRAINING, request.mode, "mode")


def forward_call(request: pb.ForwardRequest, inputs: RawTensors = NOTHING) -> ForwardCall:
    """Returns what Forward is asked for; no outputs means all."""
    forward_id, parts = checked_id(request.forward_id, "forward_id"), request.data_parallel
    outputs = tuple(request.outputs) or None
    return ForwardCall(arrays_from_proto(inputs, "inputs"), outputs, forward_id, data_parallel=parts)


def forward_response(result: ForwardResult) -> pb.ForwardResponse:
    """Returns the answer to Forward, but for its tensors."""
    return pb.ForwardResponse(forward_id=result.forward_id, loss=result.loss, step=result.step)


def backward_call(request: pb.BackwardRequest, output_gradients: RawTensors = NOTHING) -> BackwardCall:
    """Returns what Backward is asked for."""
    return BackwardCall(
        checked_id(request.forward_id, "forward_id"),
        arrays_from_proto(output_gradients, "output_gradients"),
        tuple(dict.fromkeys(request.wrt)),
        request.retain,
        request.weight if request.HasField("weight") else 1.0,
    )


def backward_response(result: BackwardResult) -> pb.BackwardResponse:
    """Returns the answer to Backward, but for its tensors."""
    return pb.BackwardResponse(contributions=result.contributions)


def step_options(message: pb.StepOptions) -> StepOptions:
    """Returns how to step; raises InvalidRequest for a policy or normalization that does not exist."""
    return StepOptions(
        message.learning_rate if message.HasField("learning_rate") else None,
        message.expected_step if message.HasField("expected_step") else None,
        known(_POLICIES, message.non_finite, "options.non_finite"),
        known(_NORMALIZATIONS, message.normalization, "options.normalization"),
        _not_negative(message.after_contributions, "options.after_contributions"),
        message.digest,
    )


def step_result(result: StepResult) -> pb.StepResult:
    """Returns the outcome of a step."""
    return pb.StepResult(
        step=result.step,
        gradient_norm=result.gradient_norm,
        learning_rate=result.learning_rate,
        contributions=result.contributions,
        skipped=result.skipped,
        non_finite_parameter=result.non_finite_parameter,
        digest=result.digest,
        loss_scale=result.loss_scale,
    )


def train_call(request: pb.TrainStepRequest, inputs: RawTensors = NOTHING) -> TrainCall:
    """Returns what TrainStep is asked for; raises InvalidRequest when it is to wait for contributions of others."""
    weight = request.weight if request.HasField("weight") else 1.0
    if request.options.after_contributions > 1:
        raise InvalidRequest(
            "TrainStep makes one contribution and steps at once, so nobody else's can come in between; use Forward, "
            "Backward and Step to wait for them",
            field="options.after_contributions",
        )
    options, parts = step_options(request.options), request.data_parallel
    return TrainCall(arrays_from_proto(inputs, "inputs"), tuple(request.outputs), weight, options, data_parallel=parts)


def train_response(result: TrainResult) -> pb.TrainStepResponse:
    """Returns the answer to TrainStep, but for its tensors."""
    return pb.TrainStepResponse(result=step_result(result.result), loss=result.loss)


def with_head(requests: Iterator[T]) -> tuple[T, Iterator[T]]:
    """Returns the first message of the stream, and all messages; raises InvalidRequest when there is none."""
    head = next(requests, None)
    if head is None:
        raise InvalidRequest("the stream has no message; send at least one")
    return head, chain([head], requests)


def parameter_values(session: Session, head: pb.SetParametersRequest, requests: Iterable[SetRequest]) -> Assembler:
    """Returns the values in the stream; a value that does not fit its parameter is refused before it is received.

    Raises UnknownParameter, DtypeMismatch, ShapeMismatch, and InvalidRequest or TensorError for a malformed stream.
    """
    values = Assembler(session.info().limits.max_parameter_bytes, overhead=0)
    for framed in until_last(requests, lambda framed: framed.message.last):
        request = framed.message
        for field in ("session_id", "request_id", "lease"):
            if getattr(request, field) not in ("", 0, getattr(head, field)):
                raise InvalidRequest(f"{field} changes within the stream; set it on the first message", field=field)
        if not request.HasField("chunk"):
            continue
        chunk = request.chunk
        if chunk.offset == 0:
            if chunk.name in values.arrays:
                raise InvalidRequest(f"parameter {chunk.name!r} comes twice; send it once", field="chunk.name")
            session.check_parameter(chunk.name, tensors.dtype_of(chunk.dtype), chunk.shape)
        values.add(chunk, framed.chunk)
    values.finish()
    return values


def until_last(requests: Iterable[T], is_last: Callable[[T], bool]) -> Iterator[T]:
    """Yields all messages; raises InvalidRequest unless the final one, and no other, is marked as the last.

    Without the mark a stream that broke off could not be told from one that ended: gRPC reports both as its end.
    """
    ended = False
    for request in requests:
        if ended:
            raise InvalidRequest("a message follows the one marked as the last; mark only the final one", field="last")
        ended = is_last(request)
        yield request
    if not ended:
        raise InvalidRequest(
            "the stream ended without a message marked as the last; send it whole, and set `last` on its final message",
            field="last",
        )


def arrays_from_proto(given: RawTensors, field: str) -> dict[str, Array]:
    """Returns the arrays; raises InvalidTensor with a field such as `inputs[x]`."""
    arrays: dict[str, Array] = {}
    for name, tensor in given.items():
        try:
            arrays[name] = tensors.decode(tensor)
        except tensors.TensorError as error:
            raise InvalidTensor(str(error), field=f"{field}[{name}]") from None
    return arrays


def tensors_to_proto(arrays: Mapping[str, Array]) -> dict[str, RawTensor]:
    """Returns the tensors of an answer."""
    return {name: tensors.encode_raw(array) for name, array in arrays.items()}


def known(choices: Mapping[N, T], number: N, field: str) -> T:
    """Returns what an enum's number stands for; raises InvalidRequest for one that is not in the contract."""
    if number not in choices:
        raise InvalidRequest(f"{field} has the unknown number {number}; use one of the contract", field=field)
    return choices[number]


def _not_negative(number: int, field: str) -> int:
    if number < 0:
        raise InvalidRequest(f"{field} is {number}; give 0 or more", field=field)
    return number
