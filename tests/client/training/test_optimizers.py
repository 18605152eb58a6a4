"""Optimizers: value objects that become the contract's messages."""

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any, cast

import pytest

import backwire as bw
from backwire_api.v1 import optimizer_pb2


def test_figures_become_the_message() -> None:
    sgd = bw.SGD(0.5, momentum=0.75, nesterov=True, weight_decay=0.25, clip_norm=2, clip_value=4).to_proto()
    assert sgd.learning_rate == 0.5
    assert (sgd.sgd.momentum, sgd.sgd.dampening, sgd.sgd.nesterov, sgd.sgd.weight_decay) == (0.75, 0, True, 0.25)
    assert (sgd.clipping.global_norm, sgd.clipping.value) == (2, 4)
    adam = bw.Adam(learning_rate=0.5, beta1=0.25, beta2=0.125, epsilon=1, weight_decay=2).to_proto()
    assert (adam.adam.beta1, adam.adam.beta2, adam.adam.epsilon, adam.adam.weight_decay) == (0.25, 0.125, 1, 2)
    assert bw.AdamW(0.5).to_proto().adamw.weight_decay == 0.01


KINDS = (
    bw.SGD,
    bw.Adam,
    bw.AdamW,
    bw.RMSprop,
    bw.Adagrad,
    bw.Adadelta,
    bw.Adamax,
    bw.NAdam,
    bw.RAdam,
    bw.Lion,
    bw.LAMB,
    bw.Muon,
)
SCHEDULES = (
    bw.ConstantSchedule(0.5, 10),
    bw.StepSchedule(10, 0.5),
    bw.MultiStepSchedule([1, 2, 2], 0.5),
    bw.ExponentialSchedule(0.5),
    bw.LinearSchedule(10, start_factor=0.25, end_factor=0.5),
    bw.PolynomialSchedule(10, 2),
    bw.CosineSchedule(10, 0.5),
    bw.CosineRestartsSchedule(10, growth=2, minimum=0.5),
    bw.OneCycleSchedule(10, warmup_share=0.5, initial_divisor=2, final_divisor=4, linear=True, three_phases=True),
    bw.SequentialSchedule([bw.LinearSchedule(3), bw.CosineSchedule(4)], [3]),
    bw.ChainedSchedule([bw.StepSchedule(10), bw.SequentialSchedule([bw.LinearSchedule(3)], [])]),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimizer_names_its_algorithm_and_does_nothing_else_by_default(kind: type[bw.Optimizer]) -> None:
    message = kind(0.5).to_proto()
    assert message.WhichOneof("algorithm") == kind.__name__.lower()
    assert {field.name for field, _ in message.ListFields()} == {"learning_rate", kind.__name__.lower()}


def test_every_rule_and_schedule_of_the_contract_has_its_class() -> None:
    assert {field.name for field in optimizer_pb2.Optimizer.DESCRIPTOR.oneofs_by_name["algorithm"].fields} == {
        kind.__name__.lower() for kind in KINDS
    }
    kinds = {schedule.to_proto().WhichOneof("kind") for schedule in SCHEDULES}
    assert {field.name for field in optimizer_pb2.Schedule.DESCRIPTOR.oneofs_by_name["kind"].fields} == kinds


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not bw.Muon])
def test_every_field_of_a_rule_is_an_argument_of_the_same_name(kind: type[bw.Optimizer]) -> None:
    message = getattr(kind(0.5).to_proto(), kind.__name__.lower())
    own = {field.name for field in fields(kind)} - {field.name for field in fields(bw.Optimizer)}
    assert own == set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_every_figure_of_a_schedule_reaches_the_message(schedule: bw.Schedule) -> None:
    optimizer = bw.SGD(1, schedule=schedule).to_proto()
    kind = optimizer.schedule.WhichOneof("kind")
    assert kind
    message = getattr(optimizer.schedule, kind)
    assert set(message.DESCRIPTOR.fields_by_name) == {field.name for field in fields(schedule)}
    for field in fields(schedule):
        if field.name == "schedules":
            parts = getattr(schedule, field.name)
            assert list(message.schedules) == [part.to_proto() for part in parts]
        elif field.name == "milestones":
            assert list(message.milestones) == list(getattr(schedule, field.name))
        else:
            assert getattr(message, field.name) == getattr(schedule, field.name)


def test_what_holds_besides_the_rule_becomes_the_message() -> None:
    message = bw.Adam(0.5, clip_norm=1, clip_parameter_norm=2, clip_value=3, average_decay=0.75).to_proto()
    assert (message.clipping.global_norm, message.clipping.norm, message.clipping.value) == (1, 2, 3)
    assert message.average_decay == 0.75


def test_groups_become_messages_in_their_order() -> None:
    groups = [
        bw.ParameterGroup("*.bias", weight_decay=0),
        bw.ParameterGroup("encoder.*", learning_rate_factor=0.5),
        bw.ParameterGroup("embedding", frozen=True),
        bw.ParameterGroup("head", optimizer=bw.AdamW(0.25, beta1=0.5)),
    ]
    sent = bw.Muon(0.5, groups=groups).to_proto().groups
    assert [group.pattern for group in sent] == ["*.bias", "encoder.*", "embedding", "head"]
    assert sent[0].HasField("weight_decay")
    assert sent[0].weight_decay == 0
    assert [group.learning_rate_factor for group in sent] == [1, 0.5, 0, 0.5]
    assert [group.frozen for group in sent] == [False, False, True, False]
    assert sent[3].rule.adamw.beta1 == 0.5


def test_muon_says_what_becomes_of_other_parameters() -> None:
    message = bw.Muon(0.5, scaling="match_rms_adamw", fallback=bw.AdamW(0.125, weight_decay=0.25)).to_proto().muon
    assert message.scaling == optimizer_pb2.MUON_SCALING_MATCH_RMS_ADAMW
    assert (message.fallback.weight_decay, message.fallback_learning_rate_factor) == (0.25, 0.25)
    assert not bw.Muon(0.5).to_proto().muon.HasField("fallback")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bw.ParameterGroup(""), "pattern is empty"),
        (lambda: bw.ParameterGroup("*", learning_rate_factor=-1), "learning_rate_factor is -1"),
        (lambda: bw.ParameterGroup("*", weight_decay=-1), "weight_decay is -1"),
        (lambda: bw.ParameterGroup("*", frozen=True, weight_decay=0), "goes with no other setting"),
        (lambda: bw.ParameterGroup("*", frozen=True, optimizer=bw.SGD(1)), "goes with no other setting"),
        (lambda: bw.ParameterGroup("*", learning_rate_factor=2, optimizer=bw.SGD(1)), "goes with no other setting"),
        (lambda: bw.ParameterGroup("*", optimizer=bw.SGD(1, clip_norm=1)), "give them to the main optimizer"),
        (lambda: bw.SGD(0, groups=[bw.ParameterGroup("*", optimizer=bw.SGD(1))]), "relative to it; give one above 0"),
        (lambda: bw.Muon(0, fallback=bw.AdamW(1)), "relative to it; give one above 0"),
        (lambda: bw.Muon(1, fallback=bw.AdamW(1, average_decay=0.5)), "give them to the main optimizer"),
        (lambda: bw.Muon(1, newton_schulz_steps=0), "a whole number, 1 to 100"),
        (lambda: bw.Muon(1, scaling=cast(Any, "unspecified")), "'original', 'match_rms_adamw'"),
        (lambda: bw.SGD(1, average_decay=1), r"average_decay is 1, but must be in \[0, 1\)"),
        (lambda: bw.RMSprop(1, decay=1), "decay is 1"),
        (lambda: bw.Adagrad(1, initial_accumulator=-1), "initial_accumulator is -1"),
        (lambda: bw.NAdam(1, momentum_decay=-1), "momentum_decay is -1"),
        (lambda: bw.StepSchedule(0), "every is 0, but must be a whole number, 1 or more"),
        (lambda: bw.CosineSchedule(cast(Any, 1.5)), "steps is 1.5, but must be a whole number"),
        (lambda: bw.ExponentialSchedule(0), "factor is 0"),
        (lambda: bw.MultiStepSchedule([2, 1]), "in rising order"),
        (lambda: bw.OneCycleSchedule(9, warmup_share=0.6, three_phases=True), r"in \[0, 0.5\]"),
        (lambda: bw.SequentialSchedule([bw.StepSchedule(1)], [1]), "one milestone between every two schedules"),
        (lambda: bw.ChainedSchedule([]), "give at least one schedule"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(bw.OptimizerError, match=message) as caught:
        make()
    assert str(caught.value.field).startswith("optimizer.")


@pytest.mark.parametrize(
    ("kind", "figures", "message"),
    [
        (bw.SGD, {"learning_rate": -1}, "SGD: learning_rate is -1, but must be 0 or more"),
        (bw.SGD, {"learning_rate": math.nan}, "learning_rate"),
        (bw.SGD, {"learning_rate": math.inf}, "learning_rate"),
        (bw.SGD, {"learning_rate": "fast"}, "learning_rate"),
        (bw.SGD, {"learning_rate": 1, "momentum": 1}, r"in \[0, 1\)"),
        (bw.SGD, {"learning_rate": 1, "dampening": 2}, r"in \[0, 1\]"),
        (bw.SGD, {"learning_rate": 1, "nesterov": True}, "needs a momentum above 0"),
        (bw.SGD, {"learning_rate": 1, "clip_norm": 0}, "above 0, or None"),
        (bw.Adam, {"learning_rate": 1, "clip_value": -1}, "above 0, or None"),
        (bw.Adam, {"learning_rate": 1, "beta1": 1}, "beta1"),
        (bw.Adam, {"learning_rate": 1, "beta2": -0.1}, "beta2"),
        (bw.Adam, {"learning_rate": 1, "epsilon": 0}, "epsilon"),
        (bw.AdamW, {"learning_rate": 1, "weight_decay": -1}, "weight_decay"),
    ],
)
def test_figures_outside_their_range_are_refused_at_once(kind: Any, figures: dict[str, Any], message: str) -> None:
    with pytest.raises(bw.OptimizerError, match=message) as caught:
        kind(**figures)
    assert str(caught.value.field).startswith("optimizer.")


def test_optimizers_are_immutable_values() -> None:
    assert bw.Adam(0.1) == bw.Adam(0.1) != bw.Adam(0.2)
    with pytest.raises(FrozenInstanceError):
        bw.Adam(0.1).learning_rate = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        bw.SGD(0.1, 0.9)  # type: ignore[arg-type, call-arg]
