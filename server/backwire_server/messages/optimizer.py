"""Optimizers between messages and the domain.

The fields of a message and of the dataclass it stands for have the same names, so one routine converts them all: a
field that is not set takes the dataclass's default.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from google.protobuf.message import Message

from backwire_api.v1 import optimizer_pb2
from backwire_server import optim

RULES: Mapping[str, type[optim.Rule]] = {
    "sgd": optim.Sgd,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
    "adamax": optim.Adamax,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "lion": optim.Lion,
    "lamb": optim.Lamb,
    "muon": optim.Muon,
}
"""The update rules, by their name in the oneof `algorithm`."""

SCHEDULES: Mapping[str, type[optim.Schedule]] = {
    "constant": optim.ConstantSchedule,
    "step": optim.StepSchedule,
    "multi_step": optim.MultiStepSchedule,
    "exponential": optim.ExponentialSchedule,
    "linear": optim.LinearSchedule,
    "polynomial": optim.PolynomialSchedule,
    "cosine": optim.CosineSchedule,
    "cosine_restarts": optim.CosineRestartsSchedule,
    "one_cycle": optim.OneCycleSchedule,
    "sequential": optim.SequentialSchedule,
    "chained": optim.ChainedSchedule,
}
"""The schedules, by their name in the oneof `kind`."""

SCALINGS: Mapping[int, optim.MuonScaling] = {
    optimizer_pb2.MUON_SCALING_UNSPECIFIED: optim.MuonScaling.ORIGINAL,
    optimizer_pb2.MUON_SCALING_ORIGINAL: optim.MuonScaling.ORIGINAL,
    optimizer_pb2.MUON_SCALING_MATCH_RMS_ADAMW: optim.MuonScaling.MATCH_RMS_ADAMW,
}

CHOICES: Mapping[str, tuple[str, Mapping[str, type[Any]]]] = {
    "Optimizer": ("algorithm", RULES),
    "UpdateRule": ("algorithm", RULES),
    "Schedule": ("kind", SCHEDULES),
}
"""The messages that choose one of several: their oneof, and what each choice stands for."""

PLAIN: Mapping[str, type[Any]] = {
    "AdamW": optim.AdamW,
    "Clipping": optim.Clipping,
    "ParameterGroup": optim.ParameterGroup,
}
"""The other messages that are fields, and what they stand for."""


def optimizer_from_proto(message: optimizer_pb2.Optimizer) -> optim.Optimizer:
    """The optimizer that the message describes.

    Raises optim.OptimizerError for what is missing or out of range; its `field` is the path within the request, such as
    `optimizer.adam.beta1`.
    """
    with _at("optimizer"):
        if not message.HasField("learning_rate"):
            raise optim.OptimizerError("learning_rate", "learning_rate is not set; give a number of at least 0")
        return optim.Optimizer(rule=_chosen(message), **_arguments(message))


def optimizer_to_proto(optimizer: optim.Optimizer) -> optimizer_pb2.Optimizer:
    """The message that describes the optimizer, with every default filled in."""
    message = optimizer_pb2.Optimizer()
    _fill(message, optimizer)
    _choose(message, optimizer.rule)
    return message


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Puts the path before the field of an error."""
    try:
        yield
    except optim.OptimizerError as error:
        raise optim.OptimizerError(f"{path}.{error.field}", str(error)) from error


def _arguments(message: Message) -> dict[str, Any]:
    """The fields that are set, besides those of a choice, as arguments for the dataclass."""
    arguments = {}
    for field in message.DESCRIPTOR.fields:
        chosen = field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
        if not chosen and (not field.has_presence or message.HasField(field.name)):
            arguments[field.name] = _value(field, getattr(message, field.name))
    return arguments


def _value(field: Any, value: Any) -> Any:
    if field.message_type is None:
        if field.enum_type is not None:
            return _scaling(field.name, value)
        return tuple(value) if field.is_repeated else value
    if not field.is_repeated:
        return _built(field.name, value)
    return tuple(_built(f"{field.name}[{index}]", item) for index, item in enumerate(value))


def _built(path: str, message: Message) -> Any:
    with _at(path):
        name = message.DESCRIPTOR.name
        return _chosen(message) if name in CHOICES else PLAIN[name](**_arguments(message))


def _chosen(message: Message) -> Any:
    oneof, kinds = CHOICES[message.DESCRIPTOR.name]
    name = message.WhichOneof(oneof)
    if name is None:
        raise optim.OptimizerError(oneof, f"{oneof} is not set; set one of {', '.join(kinds)}")
    with _at(name):
        return kinds[name](**_arguments(getattr(message, name)))


def _scaling(path: str, number: int) -> optim.MuonScaling:
    if number not in SCALINGS:
        raise optim.OptimizerError(path, f"{path} has the unknown number {number}; use a value of MuonScaling")
    return SCALINGS[number]


def _fill(message: Message, settings: Any) -> None:
    """Writes a dataclass into its message; what is None stays unset."""
    for field in fields(settings):
        value, target = getattr(settings, field.name), message.DESCRIPTOR.fields_by_name.get(field.name)
        if target is None or value is None:
            continue
        if target.message_type is not None:
            place = getattr(message, field.name)
            for one in value if target.is_repeated else [value]:
                _write(place.add() if target.is_repeated else place, one)
        elif target.is_repeated:
            getattr(message, field.name).extend(value)
        else:
            number = next((number for number, scaling in SCALINGS.items() if number and scaling is value), value)
            setattr(message, field.name, number)


def _write(message: Message, settings: Any) -> None:
    if message.DESCRIPTOR.name in CHOICES:
        _choose(message, settings)
    else:
        _fill(message, settings)


def _choose(message: Message, settings: Any) -> None:
    _, kinds = CHOICES[message.DESCRIPTOR.name]
    name = next(name for name, kind in kinds.items() if kind is type(settings))
    place = getattr(message, name)
    place.SetInParent()
    _fill(place, settings)
