"""The calls that train a session: what sessions and pipelines of both kinds send, and what they make of the answers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from backwire import _session_description
from backwire._arrays import Array
from backwire._info import StepResult, TrainStepResult
from backwire._inspection import GradientCheck
from backwire._session_description import SessionDescription
from backwire._session_state import SessionState
from backwire._wire import _inspection_messages, _message_fields, _messages, _parameter_messages
from backwire._wire._call import Call, Download, TensorCall, Upload
from backwire._wire._info_reading import step_fields
from backwire._wire._messages import Arrays, Mode, NonFinite, Normalize
from backwire._wire._pipeline_messages import Answer
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.wire import Framed

T = TypeVar("T")


def forward(
    session: SessionState,
    inputs: Arrays,
    mode: Mode,
    *,
    outputs: Sequence[str] | None,
    forward_id: str | None,
    data_parallel: int | None,
    request_id: str | None,
    read: Callable[[Answer], T],
) -> TensorCall[T]:
    """Returns the call of `Session.forward`; `read` makes a pass of the answer."""
    session._check_open()
    unique = _message_fields.new_request_id(request_id) if mode == "train" else None
    request = _messages.forward(
        session._created,
        inputs,
        mode=mode,
        outputs=outputs,
        forward_id=forward_id,
        data_parallel=data_parallel,
        request_id=unique or "",
        lease=session._lease,
    )
    return TensorCall("forward", request, read, unique)


def backward(
    session: SessionState,
    forward_id: str,
    known_outputs: Mapping[str, Array],
    output_gradients: Arrays | None,
    wrt: Sequence[str],
    *,
    retain: bool,
    weight: float | None,
    request_id: str | None,
) -> TensorCall[dict[str, Array]]:
    """Returns the call of `Forward.backward`; gradients take the dtypes of the outputs that are known."""
    session._check_open()
    unique = _message_fields.new_request_id(request_id)
    request = _messages.backward(
        session._created,
        forward_id,
        known_outputs,
        output_gradients=output_gradients,
        wrt=wrt,
        retain=retain,
        weight=weight,
        request_id=unique,
        lease=session._lease,
    )
    return TensorCall("backward", request, lambda answer: dict(answer.arrays), unique)


def step(
    session: SessionState,
    learning_rate: float | None,
    *,
    expected_step: int | None,
    non_finite: NonFinite,
    normalize: Normalize,
    after_contributions: int,
    digest: bool,
    request_id: str | None,
) -> Call[StepResult]:
    """Returns the call of `Session.step`."""
    session._check_open()
    options = _messages.step_options(
        learning_rate=learning_rate,
        expected_step=expected_step,
        non_finite=non_finite,
        normalize=normalize,
        after_contributions=after_contributions,
        digest=digest,
    )
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.StepRequest(session_id=session.id, options=options, request_id=unique, lease=session._lease)
    return Call("Step", request, lambda response: StepResult(**step_fields(response.result)), unique)


def train_step(
    session: SessionState,
    inputs: Arrays,
    *,
    outputs: Sequence[str],
    learning_rate: float | None,
    expected_step: int | None,
    non_finite: NonFinite,
    normalize: Normalize,
    weight: float | None,
    data_parallel: int | None,
    digest: bool,
    request_id: str | None,
) -> TensorCall[TrainStepResult]:
    """Returns the call of `Session.train_step`."""
    session._check_open()
    unique = _message_fields.new_request_id(request_id)
    options = _messages.step_options(
        learning_rate=learning_rate,
        expected_step=expected_step,
        non_finite=non_finite,
        normalize=normalize,
        digest=digest,
    )
    request = _messages.train_step(
        session._created,
        inputs,
        options=options,
        outputs=outputs,
        weight=weight,
        data_parallel=data_parallel,
        request_id=unique,
        lease=session._lease,
    )
    return TensorCall("train_step", request, train_step_result, unique)


def zero_gradients(session: SessionState, request_id: str | None) -> Call[int]:
    """Returns the call of `Session.zero_gradients`."""
    session._check_open()
    unique = _message_fields.new_request_id(request_id)
    request = service_pb2.ZeroGradientsRequest(session_id=session.id, request_id=unique, lease=session._lease)
    return Call("ZeroGradients", request, lambda response: int(response.contributions), unique)


def parameters(session: SessionState, names: Sequence[str] | None, *, averaged: bool) -> Download[dict[str, Array]]:
    """Returns the call of `Session.parameters`."""
    session._check_open()
    listed, expected = _parameter_messages.selected_parameters(session._created, names, trainable=False)
    request = service_pb2.GetParametersRequest(session_id=session.id, names=listed, averaged=averaged)

    def read(responses: Iterable[Framed[service_pb2.GetParametersResponse]]) -> dict[str, Array]:
        return _parameter_messages.decode_chunks(responses, expected)

    return Download("GetParameters", request, read)


def gradients(session: SessionState, names: Sequence[str] | None) -> Download[dict[str, Array]]:
    """Returns the call of `Session.gradients`."""
    session._check_open()
    listed, expected = _parameter_messages.selected_parameters(session._created, names, trainable=True)
    request = service_pb2.GetGradientsRequest(session_id=session.id, names=listed)

    def read(responses: Iterable[Framed[service_pb2.GetGradientsResponse]]) -> dict[str, Array]:
        return _parameter_messages.decode_chunks(responses, expected)

    return Download("GetGradients", request, read)


def set_parameters(session: SessionState, values: Arrays, request_id: str | None) -> Upload[None]:
    """Returns the call of `Session.set_parameters`."""
    session._check_open()
    arrays = _parameter_messages.checked_parameters(session._created, values)
    unique, lease = _message_fields.new_request_id(request_id), session._lease

    def requests() -> Iterator[Framed[service_pb2.SetParametersRequest]]:
        return _parameter_messages.set_parameters(session._created, arrays, unique, lease)

    return Upload("SetParameters", requests, lambda _: None, unique)


def check_gradients(
    session: SessionState, inputs: Arrays, parameters: Sequence[str] | None, max_elements: int, seed: int
) -> Call[GradientCheck]:
    """Returns the call of `Session.check_gradients`."""
    session._check_open()
    request = _inspection_messages.check_request(session._created, inputs, parameters, max_elements, seed)
    return Call("CheckGradients", request, _inspection_messages.gradient_check)


def describe(
    session: SessionState, inputs: Arrays | None, shapes: Mapping[str, Sequence[int]] | None, passes: int
) -> Call[SessionDescription]:
    """Returns the call of `Session.describe`."""
    session._check_open()
    request = _session_description.describe_request(session._created, inputs or {}, shapes or {}, passes)
    return Call("DescribeSession", request, _session_description.session_description)


def train_step_result(answer: Answer) -> TrainStepResult:
    """Returns the answer to a TrainStep as data."""
    message = answer.message
    return TrainStepResult(**step_fields(message.result), loss=message.loss, outputs=dict(answer.arrays))
