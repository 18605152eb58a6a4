"""The answers that a session remembers, as messages beside their tensors, and back."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import storage_pb2
from backwire_server.messages import calls
from backwire_server.sessions.calls import (
    BackwardResult,
    CheckpointInfo,
    CountResult,
    ForwardResult,
    LeaseResult,
    StepResult,
    TrainResult,
)
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.state import Arrays, RequestImage
from backwire_server.storage.journal.mutations import lease_from_proto, lease_to_proto

_NONE: Arrays = {}


def encode_request(image: RequestImage) -> tuple[storage_pb2.RequestRecord, Arrays]:
    """Returns a remembered mutation as a message, and the tensors of its answer."""
    record = storage_pb2.RequestRecord(request_id=image.key.request_id, fingerprint=image.key.fingerprint)
    if image.answer is None:
        return record, _NONE
    return record, _ENCODERS[type(image.answer)](image.answer, record)


def decode_request(record: storage_pb2.RequestRecord, arrays: Arrays = _NONE) -> RequestImage:
    """Returns what `encode_request` was given."""
    field = record.WhichOneof("answer")
    answer = None if field is None else _DECODERS[field](getattr(record, field), arrays)
    return RequestImage(RequestKey(record.request_id, record.fingerprint), answer)


def _forward(answer: ForwardResult, record: storage_pb2.RequestRecord) -> Arrays:
    record.forward.CopyFrom(calls.forward_response(answer))
    return answer.outputs


def _backward(answer: BackwardResult, record: storage_pb2.RequestRecord) -> Arrays:
    record.backward.CopyFrom(calls.backward_response(answer))
    return answer.input_gradients


def _step(answer: StepResult, record: storage_pb2.RequestRecord) -> Arrays:
    record.step.CopyFrom(calls.step_result(answer))
    return _NONE


def _train(answer: TrainResult, record: storage_pb2.RequestRecord) -> Arrays:
    record.train_step.CopyFrom(calls.train_response(answer))
    return answer.outputs


def _count(answer: CountResult, record: storage_pb2.RequestRecord) -> Arrays:
    record.count = answer.count
    return _NONE


def _checkpoint(answer: CheckpointInfo, record: storage_pb2.RequestRecord) -> Arrays:
    message = pb.Checkpoint(name=answer.name, step=answer.step, digest=answer.digest, size_bytes=answer.size)
    seconds = math.floor(answer.created)
    message.create_time.CopyFrom(Timestamp(seconds=seconds, nanos=int((answer.created - seconds) * 1e9)))
    record.checkpoint.CopyFrom(message)
    return _NONE


def _lease(answer: LeaseResult, record: storage_pb2.RequestRecord) -> Arrays:
    lease_to_proto(answer, record.lease)
    return _NONE


def _forward_result(message: pb.ForwardResponse, arrays: Arrays) -> ForwardResult:
    loss = message.loss if message.HasField("loss") else None
    return ForwardResult(message.forward_id, arrays, loss, message.step)


def _step_result(message: pb.StepResult, _: Arrays) -> StepResult:
    return StepResult(
        message.step,
        message.gradient_norm,
        message.learning_rate,
        message.contributions,
        message.skipped,
        message.non_finite_parameter,
        message.digest,
        message.loss_scale if message.HasField("loss_scale") else None,
    )


def _checkpoint_info(message: pb.Checkpoint, _: Arrays) -> CheckpointInfo:
    created = message.create_time.seconds + message.create_time.nanos / 1e9
    return CheckpointInfo(message.name, message.step, message.digest, created, message.size_bytes)


def _lease_result(message: pb.Lease, _: Arrays) -> LeaseResult:
    lease = lease_from_proto(message)
    return LeaseResult(lease.number, lease.holder, lease.seconds)


_ENCODERS: Mapping[type, Callable[[Any, storage_pb2.RequestRecord], Arrays]] = {
    ForwardResult: _forward,
    BackwardResult: _backward,
    StepResult: _step,
    TrainResult: _train,
    CountResult: _count,
    CheckpointInfo: _checkpoint,
    LeaseResult: _lease,
}
_DECODERS: Mapping[str, Callable[[Any, Arrays], Any]] = {
    "forward": _forward_result,
    "backward": lambda message, arrays: BackwardResult(arrays, message.contributions),
    "step": _step_result,
    "train_step": lambda message, arrays: TrainResult(_step_result(message.result, _NONE), message.loss, arrays),
    "count": lambda count, _: CountResult(count),
    "checkpoint": _checkpoint_info,
    "lease": _lease_result,
}
