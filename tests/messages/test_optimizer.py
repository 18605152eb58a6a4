"""Optimizers survive the wire, and what is wrong with one is told by its path."""

from dataclasses import fields
from typing import Any

import pytest
from google.protobuf.message import Message

import backwire as bw
from backwire_api.v1 import optimizer_pb2
from backwire_server import optim
from backwire_server.messages.optimizer import (
    CHOICES,
    RULES,
    SCHEDULES,
    optimizer_from_proto,
    optimizer_to_proto,
)

KINDS = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Lion", "LAMB", "Muon"]
OPTIMIZERS = [
    optim.Optimizer(0.1, optim.Sgd()),
    optim.Optimizer(0, optim.Sgd(momentum=0.9, nesterov=True, weight_decay=1e-4), optim.Clipping(value=1)),
    optim.Optimizer(0.1, optim.Adam(0.8, 0.9, 1e-6, amsgrad=True), optim.Clipping(norm=2, global_norm=3)),
    optim.Optimizer(0.1, optim.AdamW(weight_decay=0), average_decay=0.99),
    optim.Optimizer(0.1, optim.RMSprop(0.9, 1e-7, 0.5, centered=True)),
    optim.Optimizer(0.1, optim.Adagrad(0.1, 0.2, 1e-6)),
    optim.Optimizer(1, optim.Adadelta(0.8, 1e-5), average_decay=0.0),
    optim.Optimizer(0.1, optim.Adamax()),
    optim.Optimizer(0.1, optim.NAdam(momentum_decay=0, decoupled=True, weight_decay=0.1)),
    optim.Optimizer(0.1, optim.RAdam(decoupled=True)),
    optim.Optimizer(0.1, optim.Lion()),
    optim.Optimizer(0.1, optim.Lamb()),
    optim.Optimizer(0.1, optim.Muon(0.9, False, 3, optim.MuonScaling.MATCH_RMS_ADAMW, optim.AdamW(0.5), 0.1)),
    optim.Optimizer(
        0.1,
        optim.Muon(),
        groups=(
            optim.ParameterGroup("*.bias", weight_decay=0),
            optim.ParameterGroup("embedding", frozen=True),
            optim.ParameterGroup("head", 0.5, rule=optim.Lion(0.5)),
        ),
    ),
    *(
        optim.Optimizer(0.1, optim.Sgd(), schedule=schedule)
        for schedule in [
            optim.ConstantSchedule(0, 5),
            optim.StepSchedule(10),
            optim.MultiStepSchedule((1, 2, 2), 0.5),
            optim.ExponentialSchedule(0.9),
            optim.LinearSchedule(10, 0, 0.5),
            optim.PolynomialSchedule(10, 2),
            optim.CosineSchedule(10, 1e-5),
            optim.CosineRestartsSchedule(10, 2, 1e-5),
            optim.OneCycleSchedule(10, 0.25, 5, 6, linear=True, three_phases=True),
            optim.SequentialSchedule((optim.LinearSchedule(3), optim.CosineSchedule(4)), (3,)),
            optim.ChainedSchedule((optim.SequentialSchedule((optim.StepSchedule(3),), ()), optim.CosineSchedule(4))),
        ]
    ),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_an_optimizer_comes_back_from_the_wire_as_it_was(optimizer: optim.Optimizer) -> None:
    wire = optimizer_to_proto(optimizer).SerializeToString()
    assert optimizer_from_proto(optimizer_pb2.Optimizer.FromString(wire)) == optimizer


def test_every_rule_and_schedule_of_the_contract_is_known_and_tried() -> None:
    for message in (optimizer_pb2.Optimizer, optimizer_pb2.UpdateRule, optimizer_pb2.Schedule):
        oneof, kinds = CHOICES[message.DESCRIPTOR.name]
        assert [field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields] == list(kinds)
    tried = {type(optimizer.rule) for optimizer in OPTIMIZERS} | {type(optimizer.schedule) for optimizer in OPTIMIZERS}
    assert tried - {type(None)} == {*RULES.values(), *SCHEDULES.values()}


@pytest.mark.parametrize("message", [optimizer_pb2.UpdateRule, optimizer_pb2.Schedule])
def test_fields_of_messages_and_dataclasses_have_the_same_names(message: type[Message]) -> None:
    _, kinds = CHOICES[message.DESCRIPTOR.name]
    for name, kind in kinds.items():
        assert set(getattr(message(), name).DESCRIPTOR.fields_by_name) == {field.name for field in fields(kind)}


@pytest.mark.parametrize("rule", RULES)
def test_fields_that_are_not_set_mean_the_documented_defaults(rule: str) -> None:
    message = optimizer_pb2.Optimizer(learning_rate=0.5)
    getattr(message, rule).SetInParent()
    assert optimizer_from_proto(message) == optim.Optimizer(0.5, RULES[rule]())


def test_the_answer_has_every_default_filled_in() -> None:
    message = optimizer_to_proto(optim.Optimizer(0.5, optim.Muon()))
    assert [field.name for field, _ in message.ListFields()] == ["learning_rate", "muon"]
    assert set_fields(message.muon) == {field.name for field in fields(optim.Muon)}
    assert message.muon.fallback.weight_decay == 0.01
    assert message.muon.scaling == optimizer_pb2.MUON_SCALING_ORIGINAL


def set_fields(message: Message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_sdk_and_the_server_mean_the_same_by_defaults(kind: str) -> None:
    rule = RULES[kind.lower()]()
    assert optimizer_from_proto(getattr(bw, kind)(0.5).to_proto()) == optim.Optimizer(0.5, rule)


SGD: dict[str, Any] = {"learning_rate": 1, "sgd": {}}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"sgd": {}}, "learning_rate"),
        ({"learning_rate": 1}, "algorithm"),
        ({"learning_rate": -1, "sgd": {}}, "learning_rate"),
        ({"learning_rate": 1, "adam": {"beta1": 1}}, "adam.beta1"),
        ({"learning_rate": 1, "adamw": {"epsilon": 0}}, "adamw.epsilon"),
        ({"learning_rate": 1, "muon": {"fallback": {"beta2": 2}}}, "muon.fallback.beta2"),
        ({"learning_rate": 1, "muon": {"scaling": 9}}, "muon.scaling"),
        (SGD | {"clipping": {"value": 0}}, "clipping.value"),
        (SGD | {"average_decay": 1}, "average_decay"),
        (SGD | {"schedule": {}}, "schedule.kind"),
        (SGD | {"schedule": {"cosine": {}}}, "schedule.cosine.steps"),
        (SGD | {"schedule": {"exponential": {}}}, "schedule.exponential.factor"),
        (
            SGD | {"schedule": {"chained": {"schedules": [{"step": {"every": 1}}, {}]}}},
            "schedule.chained.schedules[1].kind",
        ),
        (SGD | {"groups": [{"pattern": "*"}, {}]}, "groups[1].pattern"),
        (SGD | {"groups": [{"pattern": "*", "rule": {}}]}, "groups[0].rule.algorithm"),
        (SGD | {"groups": [{"pattern": "*", "rule": {"lion": {"beta1": -1}}}]}, "groups[0].rule.lion.beta1"),
        (SGD | {"groups": [{"pattern": "*"}] * 1001}, "groups"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_told_by_its_path(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(optim.OptimizerError) as caught:
        optimizer_from_proto(optimizer_pb2.Optimizer(**settings))
    assert caught.value.field == f"optimizer.{field}"
