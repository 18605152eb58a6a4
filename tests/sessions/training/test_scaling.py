"""Gradients of float16 neither vanish nor overflow for long: the loss is scaled, and an overflow skips the step."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server import optim
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.narrow import BFLOAT16, HALF, SINGLE
from backwire_server.sessions.budget import Budget
from backwire_server.sessions.calls import BackwardCall, ForwardCall, NonFinitePolicy, StepOptions, TrainCall
from backwire_server.sessions.errors import NonFiniteGradient
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.keeping.content import Content
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.imaging import check_fits, image_of, state_of
from backwire_server.sessions.training.scaling import FIRST, LARGEST, PATIENCE, LossScale

Array = NDArray[Any]
EXECUTORS = list(Executor) if find_spec("jax") else [Executor.NUMPY]
START = np.array([[1.0], [2.0]], "f4")
GRAPH = Graph(
    inputs=(Input("x", TensorType.of("f4", ("batch", 2))), Input("s", TensorType.of("f4", ("batch", 1)))),
    parameters=(Parameter("w", TensorType.of("f4", (2, 1))),),
    nodes=(
        Node("MatMul", ("x", "w"), ("y",)),
        Node("Mul", ("y", "s"), ("z",)),
        Node("ReduceMean", ("z",), ("loss",), {"keepdims": 0}),
    ),
    outputs={"y": "y"},
    loss="loss",
    precision=HALF,
)
"""The gradient of w is the mean of s x, and that of y is s."""


def begun(**changes: Any) -> Content:
    spec = SessionSpec(GRAPH, {"w": START.copy()}, optim.Optimizer(0.5, optim.Sgd()))
    return Content.new(replace(spec, **changes), Limits(), Budget(1 << 30).account())


def batch(s: float, size: int = 1) -> dict[str, Array]:
    return {"x": np.ones((size, 2), "f4"), "s": np.full((size, 1), s, "f4")}


def do(content: Content, call: Any) -> Any:
    return content.perform(call, lambda: None)


def step(content: Content, s: float, policy: NonFinitePolicy = NonFinitePolicy.REJECT) -> Any:
    return do(content, TrainCall(batch(s), options=StepOptions(non_finite=policy))).result


def weights(content: Content) -> list[list[float]]:
    found: list[list[float]] = content.trainer.parameters.arrays["w"].tolist()
    return found


def test_the_scale_is_halved_at_an_overflow_and_doubled_after_many_steps_without() -> None:
    assert LossScale().after(finite=False) == LossScale(FIRST / 2)
    assert LossScale(1.0, 7).after(finite=False) == LossScale(1.0)
    found = LossScale(4.0)
    for number in range(1, PATIENCE):
        found = found.after(finite=True)
        assert found == LossScale(4.0, number)
    assert found.after(finite=True) == LossScale(8.0)
    assert LossScale(LARGEST, PATIENCE - 1).after(finite=True) == LossScale(LARGEST)


@pytest.mark.parametrize(("value", "steps"), [(0.5, 0), (3.0, 0), (np.inf, 0), (np.nan, 0), (2.0, -1), (2.0, PATIENCE)])
def test_a_scale_that_no_session_has_is_refused(value: float, steps: int) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        LossScale(value, steps)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_gradients_below_the_range_of_float16_do_not_vanish(executor: Executor) -> None:
    content, small = begun(executor=executor), 2.0**-30
    assert np.float16(small) == 0
    assert step(content, small).gradient_norm == pytest.approx(small * 2**0.5)
    assert weights(content) == (START - np.float32(small / 2)).tolist()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_step_that_overflows_is_skipped_and_told_and_halves_the_scale(executor: Executor) -> None:
    content = begun(executor=executor)
    told = [step(content, 4.0) for _ in range(4)]
    assert [each.skipped for each in told] == [True, True, True, False]
    assert [each.step for each in told] == [0, 0, 0, 1]
    assert [each.non_finite_parameter for each in told] == ["w", "w", "w", ""]
    assert [each.loss_scale for each in told] == [FIRST / 2, FIRST / 4, FIRST / 8, FIRST / 8]
    assert weights(content) == (START - 2.0).tolist()
    assert content.trainer.scaling == LossScale(FIRST / 8, 1)


def test_a_skipped_step_leaves_all_but_scale_and_number_of_passes() -> None:
    content = begun(optimizer=optim.Optimizer(0.5, optim.Sgd(momentum=0.9), average_decay=0.5))
    step(content, 0.5)
    before = image_of(content.trainer).detached().state
    step(content, 4.0)
    after = state_of(content.trainer)
    assert after.digest() == replace(before, forwards=2, scaling=LossScale(FIRST / 2)).digest()


def test_at_a_scale_of_one_the_policy_of_the_step_holds() -> None:
    content = begun()
    for _ in range(16):
        assert step(content, 1e6).skipped
    assert content.trainer.scaling == LossScale(1.0)
    with pytest.raises(NonFiniteGradient, match="'w'"):
        step(content, 1e6)
    assert step(content, 1e6, NonFinitePolicy.SKIP).skipped
    assert weights(content) == START.tolist()
    applied = step(content, 1e6, NonFinitePolicy.ALLOW)
    assert (applied.skipped, applied.step, applied.loss_scale) == (False, 1, 1.0)


def test_nobody_sees_the_scale_in_gradients() -> None:
    content, small = begun(), 2.0**-30
    for _ in range(2):
        do(content, ForwardCall(batch(small), forward_id="p"))
        found = do(content, BackwardCall("p", wrt=("x", "s"), weight=0.5))
    assert found.input_gradients["s"].tolist() == [[3.0]]
    assert found.input_gradients["x"].tolist() == [[small, 2 * small]]
    assert content.trainer.accumulator.current.arrays["w"].tolist() == [[small], [small]]
    do(content, ForwardCall(batch(1.0), forward_id="q"))
    given = {"y": np.array([[small]], "f4")}
    found = do(content, BackwardCall("q", given, wrt=("x",)))
    assert found.input_gradients["x"].tolist() == [[small, 2 * small]]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_gradients_of_outputs_in_float16_are_scaled_though_the_scale_is_beyond_that(executor: Executor) -> None:
    nodes = (*GRAPH.nodes, Node("Cast", ("y",), ("h",), {"to": "float16"}))
    content = begun(graph=replace(GRAPH, nodes=nodes, outputs={"h": "h"}), executor=executor)
    do(content, ForwardCall(batch(1.0, size=2), forward_id="p"))
    found = do(content, BackwardCall("p", {"h": np.array([[0.25], [0.0]], "f2")}, wrt=("x",)))
    assert found.input_gradients["x"].tolist() == [[0.25, 0.5], [0.0, 0.0]]
    assert content.trainer.accumulator.current.arrays["w"].tolist() == [[0.25], [0.25]]


def test_contributions_of_several_scales_are_one_gradient() -> None:
    content = begun()
    do(content, ForwardCall(batch(0.25), forward_id="p"))
    do(content, BackwardCall("p", retain=True))
    content.trainer.scaling = LossScale(2.0)
    do(content, BackwardCall("p"))
    assert do(content, StepOptions()).gradient_norm == pytest.approx(0.5 * 2**0.5)


def test_parts_of_a_batch_are_scaled_as_well() -> None:
    content, small = begun(data_parallel=3), 2.0**-30
    found = do(content, TrainCall(batch(small, size=6)))
    assert found.result.gradient_norm == pytest.approx(small * 2**0.5)
    assert [do(content, TrainCall(batch(100.0, size=6))).result.skipped for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("precision", [SINGLE, BFLOAT16], ids=str)
def test_other_precisions_have_no_scale(precision: Any) -> None:
    content = begun(graph=replace(GRAPH, precision=precision))
    assert content.trainer.scaling is None
    assert step(content, 2.0**-30).loss_scale is None
    assert weights(content) == (START - np.float32(2.0**-31)).tolist()


def test_the_scale_goes_with_the_session() -> None:
    content = begun()
    for s in (4.0, 0.5, 0.5):
        step(content, s)
    spec = SessionSpec(GRAPH, {"w": START.copy()}, optim.Optimizer(0.5, optim.Sgd()))
    account = Budget(1 << 30).account()
    copies = [
        Content.of(spec, image_of(content.trainer), Limits(), account),
        content.branch(spec, Limits(), account),
    ]
    assert [each.trainer.scaling for each in copies] == [LossScale(FIRST / 2, 2)] * 2
    for each in (content, *copies):
        step(each, 3.0)
    assert len({state_of(each.trainer).digest() for each in (content, *copies)}) == 1


@pytest.mark.parametrize(("graph", "scaling"), [(GRAPH, None), (replace(GRAPH, precision=BFLOAT16), LossScale())])
def test_a_state_whose_scale_does_not_go_with_the_precision_is_refused(graph: Graph, scaling: LossScale | None) -> None:
    state = replace(state_of(begun(graph=graph).trainer), scaling=scaling)
    with pytest.raises(ValueError, match="loss scale"):
        check_fits(SessionSpec(graph, {}, optim.Optimizer(0.5, optim.Sgd())), state)
