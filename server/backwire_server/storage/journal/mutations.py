"""Mutations as records of a journal, and back."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from backwire_api import wire
from backwire_api.tensors import Bytes
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import storage_pb2
from backwire_api.wire import Framed
from backwire_server.messages import calls
from backwire_server.sessions.calls import (
    BackwardCall,
    BranchCall,
    ForwardCall,
    LeaseCall,
    LeaseResult,
    NonFinitePolicy,
    SetCall,
    StepOptions,
    TrainCall,
    ZeroCall,
)
from backwire_server.sessions.errors import MessageTooLarge, SessionError
from backwire_server.sessions.keeping.durable import Mutation
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.accumulator import Normalization
from backwire_server.sessions.training.state import Arrays
from backwire_server.storage.damage import Damaged

MAX_RECORD_BYTES = 2**31 - 1
"""The most bytes of a record: no implementation of protobuf reads a larger message."""

_POLICIES = {
    NonFinitePolicy.REJECT: pb.NON_FINITE_POLICY_REJECT,
    NonFinitePolicy.SKIP: pb.NON_FINITE_POLICY_SKIP,
    NonFinitePolicy.ALLOW: pb.NON_FINITE_POLICY_ALLOW,
}
_NORMALIZATIONS = {
    Normalization.SUM: pb.GRADIENT_NORMALIZATION_SUM,
    Normalization.MEAN: pb.GRADIENT_NORMALIZATION_MEAN,
}


def encode_mutation(number: int, mutation: Mutation) -> list[Bytes]:
    """Returns the JournalRecord with this number in pieces that follow one another; large tensors are not copied.

    Raises MessageTooLarge when it would have more than MAX_RECORD_BYTES.
    """
    record = storage_pb2.JournalRecord(number=number, dropped_forward_ids=mutation.dropped)
    if mutation.key is not None:
        record.request_id, record.fingerprint = mutation.key.request_id, mutation.key.fingerprint
    kind = _KINDS[type(mutation.call)]
    member = getattr(record, kind.field)
    member.SetInParent()
    kind.encode(mutation.call, member)
    parts = wire.parts(Framed(record, calls.tensors_to_proto(kind.arrays(mutation.call))))
    if (size := sum(map(len, parts))) > MAX_RECORD_BYTES:
        raise MessageTooLarge(
            f"the tensors of the call make a record of {size:,} bytes, but the journal of a durable session takes "
            f"{MAX_RECORD_BYTES:,}; set fewer parameters in one call, or use a smaller batch"
        )
    return parts


def decode_mutation(data: bytes) -> tuple[int, Mutation]:
    """Returns the number of a record and its mutation, whose arrays may share the memory of `data`.

    Calls come back as `chunked`, since what was accepted once is not measured against the size of a message again.
    Raises Damaged for bytes that `encode_mutation` does not write.
    """
    try:
        record, arrays = _parsed(data)
        field = record.WhichOneof("mutation")
        if field is None:
            raise Damaged(f"record {record.number} has no mutation that this version knows")
        call = _DECODERS[field](getattr(record, field), arrays)
    except (DecodeError, SessionError) as error:
        raise Damaged(f"it is no record of a journal: {error}") from None
    key = RequestKey(record.request_id, record.fingerprint) if record.request_id else None
    return record.number, Mutation(call, key, tuple(record.dropped_forward_ids))


def forward_to_proto(call: ForwardCall, message: pb.ForwardRequest) -> None:
    """Writes a Forward in train mode, as `Trainer.explicit` has it, to a message, but for its inputs."""
    message.mode, message.forward_id, message.data_parallel = pb.MODE_TRAIN, call.forward_id, call.data_parallel
    message.outputs.extend(call.outputs or ())


def forward_from_proto(message: pb.ForwardRequest, inputs: Arrays) -> ForwardCall:
    """Returns a Forward that was accepted, from what `forward_to_proto` wrote.

    One without a number of parts has one, also where the session has more for each batch: it is of a version whose
    Forward was always computed at once.
    """
    outputs, parts = tuple(message.outputs) or None, message.data_parallel or 1
    return ForwardCall(inputs, outputs, message.forward_id, chunked=True, data_parallel=parts)


def lease_to_proto(lease: LeaseCall | LeaseResult, message: pb.Lease) -> None:
    """Writes a lease to a message, also one that was given back."""
    message.number, message.holder = lease.number, lease.holder
    message.timeout.FromNanoseconds(round(lease.seconds * 1e9))


def lease_from_proto(message: pb.Lease) -> LeaseCall:
    """Returns what `lease_to_proto` wrote, to the nanosecond."""
    return LeaseCall(message.number, message.holder, message.timeout.ToNanoseconds() / 1e9)


def _backward_to_proto(call: BackwardCall, message: pb.BackwardRequest) -> None:
    message.forward_id, message.retain, message.weight = call.forward_id, call.retain, call.weight
    message.wrt.extend(call.wrt)


def _backward_from_proto(message: pb.BackwardRequest, arrays: Arrays) -> BackwardCall:
    return BackwardCall(message.forward_id, arrays, tuple(message.wrt), message.retain, message.weight, chunked=True)


def _options_to_proto(options: StepOptions, message: pb.StepOptions) -> None:
    if options.learning_rate is not None:
        message.learning_rate = options.learning_rate
    if options.expected_step is not None:
        message.expected_step = options.expected_step
    message.non_finite, message.normalization = _POLICIES[options.non_finite], _NORMALIZATIONS[options.normalization]
    message.after_contributions, message.digest = options.after_contributions, options.digest


def _train_to_proto(call: TrainCall, message: pb.TrainStepRequest) -> None:
    _options_to_proto(call.options, message.options)
    message.outputs.extend(call.outputs)
    message.weight, message.data_parallel = call.weight, call.data_parallel


def _train_from_proto(message: pb.TrainStepRequest, arrays: Arrays) -> TrainCall:
    options = calls.step_options(message.options)
    parts = message.data_parallel
    return TrainCall(arrays, tuple(message.outputs), message.weight, options, chunked=True, data_parallel=parts)


def _nothing(*_: Any) -> None:
    """Writes a call that has no fields, or none but tensors."""


class _Kind(NamedTuple):
    """How a call of one type is written: to which member of the record, and which arrays it has."""

    field: str
    encode: Callable[[Any, Any], None]
    arrays: Callable[[Any], Arrays]


def _no_arrays(_: Any) -> Arrays:
    return {}


_KINDS: Mapping[type, _Kind] = {
    ForwardCall: _Kind("forward", forward_to_proto, lambda call: call.inputs),
    BackwardCall: _Kind("backward", _backward_to_proto, lambda call: call.output_gradients),
    StepOptions: _Kind("step", lambda call, message: _options_to_proto(call, message.options), _no_arrays),
    TrainCall: _Kind("train_step", _train_to_proto, lambda call: call.inputs),
    ZeroCall: _Kind("zero_gradients", _nothing, _no_arrays),
    SetCall: _Kind("set_parameters", _nothing, lambda call: call.values),
    LeaseCall: _Kind("lease", lease_to_proto, _no_arrays),
    BranchCall: _Kind("branch", _nothing, _no_arrays),
}
_DECODERS: Mapping[str, Callable[[Any, Arrays], Any]] = {
    "forward": forward_from_proto,
    "backward": _backward_from_proto,
    "step": lambda message, _: calls.step_options(message.options),
    "train_step": _train_from_proto,
    "zero_gradients": lambda *_: ZeroCall(),
    "set_parameters": lambda _, arrays: SetCall(arrays),
    "lease": lambda message, _: lease_from_proto(message),
    "branch": lambda *_: BranchCall(),
}


def _parsed(data: bytes) -> tuple[storage_pb2.JournalRecord, Arrays]:
    framed = wire.decode(storage_pb2.JournalRecord, data)
    return framed.message, calls.arrays_from_proto(framed.tensors, "tensors")
