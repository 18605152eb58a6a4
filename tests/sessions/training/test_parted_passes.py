"""Forward and Backward of a session in parts give what TrainStep gives, and micro-batches by hand, to the bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from tests.sessions.parted_passes import PARTS, SEEDS, backward, forward, given, in_calls, sides
from tests.sessions.parted_steps import EXAMPLES, by_hand, network, step

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.errors import MissingInput, NotSplittable, ShapeMismatch, UnknownOutput
from backwire_server.messages.session import session_spec
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_forward_backward_and_step_are_a_train_step_and_micro_batches(make_session: Any, parts: int) -> None:
    calls, steps, hand = make_session(network(parts)), make_session(network(parts)), make_session(network())
    for number in range(4):
        in_calls(calls, number)
        step(steps, number)
        by_hand(hand, number, parts)
        assert calls.digest(UNBOUNDED) == steps.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


@pytest.mark.usefixtures("alone")
def test_loss_and_outputs_of_a_forward_are_those_of_the_whole_batch(make_session: Any) -> None:
    call = ForwardCall(given(), ("y", "mean"))
    once, parts = (make_session(sides(parts)).forward(UNBOUNDED, call) for parts in (0, PARTS))
    assert parts.loss == pytest.approx(once.loss, rel=1e-6)
    assert (parts.outputs["y"].shape, parts.step) == ((EXAMPLES, 2), 0)
    for name in ("y", "mean"):
        np.testing.assert_allclose(parts.outputs[name], once.outputs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("seeded", [(), ("y",), ("mean",), ("loss",), ("mean", "loss"), ("y", "mean", "loss")])
def test_gradients_of_inputs_and_parameters_are_those_of_the_whole_batch(
    make_session: Any, gradients: Any, seeded: tuple[str, ...]
) -> None:
    found = []
    for parts in (0, PARTS):
        session = make_session(sides(parts))
        name = session.forward(UNBOUNDED, ForwardCall(given(), ("y",))).forward_id
        call = BackwardCall(name, {each: SEEDS[each] for each in seeded}, ("x", "scale", "t"), weight=2.0)
        found.append({**session.backward(UNBOUNDED, call).input_gradients, **gradients(session)})
    assert found[0].keys() == found[1].keys() > {"x", "scale", "t"}
    for name, once in found[0].items():
        assert once.any() or not seeded or "loss" not in seeded
        np.testing.assert_allclose(found[1][name], once, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_gradients_of_inputs_of_two_bytes_are_put_together_in_float32(make_session: Any, dtype: type[Any]) -> None:
    x, scale = bw.input("x", ("batch", 2)), bw.input("scale", (2,), dtype=np.dtype(dtype).name)
    weight = bw.parameter("weight", np.ones(2, np.float32))
    graph = bw.graph(loss=bw.mean(bw.sum(x * weight * bw.cast(scale, "float32"), axis=1))).proto
    session = make_session(session_spec(pb.CreateSessionRequest(graph=graph, data_parallel=PARTS), Limits()))
    inputs = {"x": np.full((EXAMPLES, 2), 40_000, np.float32), "scale": np.ones(2, dtype)}
    found = backward(session, session.forward(UNBOUNDED, ForwardCall(inputs)).forward_id, wrt=("scale",))
    np.testing.assert_array_equal(found.input_gradients["scale"], np.full(2, 40_000, dtype))


@pytest.mark.usefixtures("alone")
def test_gradients_of_outputs_per_example_are_micro_batches_that_are_summed(make_session: Any) -> None:
    calls, hand = make_session(sides(PARTS)), make_session(sides())
    name = calls.forward(UNBOUNDED, ForwardCall(given(), ("y",))).forward_id
    calls.backward(UNBOUNDED, BackwardCall(name, {"y": SEEDS["y"]}))
    for rows in np.array_split(np.arange(EXAMPLES), PARTS):
        part = {key: array if key == "scale" else array[rows] for key, array in given().items()}
        name = hand.forward(UNBOUNDED, ForwardCall(part)).forward_id
        hand.backward(UNBOUNDED, BackwardCall(name, {"y": SEEDS["y"][rows]}))
    for session in (calls, hand):
        session.step(UNBOUNDED, StepOptions())
    assert calls.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


@pytest.mark.usefixtures("alone")
def test_a_retained_pass_gives_the_same_again_and_with_the_parameters_that_it_was_made_with(
    make_session: Any, gradients: Any
) -> None:
    session = make_session(network(PARTS))
    name = forward(session, 0)
    backward(session, name, retain=True)
    first = gradients(session)
    session.step(UNBOUNDED, StepOptions())
    assert backward(session, name, wrt=("x",)).contributions == 1
    again = gradients(session)
    for each in first:
        np.testing.assert_array_equal(first[each], again[each], each)
    with pytest.raises(errors.PassExpired, match="used it up"):
        backward(session, name)


@pytest.mark.usefixtures("alone")
def test_a_pass_of_before_frozen_parameters_were_set_is_differentiated_with_those(
    make_session: Any, gradients: Any
) -> None:
    undisturbed, session = make_session(network(PARTS)), make_session(network(PARTS))
    names = [forward(each, 0) for each in (undisturbed, session)]
    session.set_parameters(UNBOUNDED, {"table": np.full(4, 2.0, np.float32)})
    for each, name in zip((undisturbed, session), names, strict=True):
        backward(each, name)
    for key, array in gradients(undisturbed).items():
        np.testing.assert_array_equal(array, gradients(session)[key])


@pytest.mark.usefixtures("alone")
def test_a_pass_that_is_too_old_is_refused(make_session: Any) -> None:
    session = make_session(replace(network(PARTS), max_staleness=1))
    name = forward(session, 0)
    step(session, 1)
    backward(session, name, retain=True)
    step(session, 2)
    with pytest.raises(errors.StalePass, match="2 steps ago"):
        backward(session, name)


@pytest.mark.usefixtures("alone")
def test_outputs_that_parts_do_not_give_are_refused_before_anything_changes(make_session: Any) -> None:
    session = make_session(sides(PARTS))
    before = session.digest(UNBOUNDED)
    with pytest.raises(NotSplittable, match=r"output 'high' is int32\[\].*give it batch as an axis") as caught:
        session.forward(UNBOUNDED, ForwardCall(given(), forward_id="f"))
    assert caught.value.field == "outputs"
    with pytest.raises(errors.PassNotFound):
        backward(session, "f")
    assert session.digest(UNBOUNDED) == before
    assert session.evaluate(UNBOUNDED, ForwardCall(given())).outputs["high"].dtype == np.int32


@pytest.mark.usefixtures("alone")
def test_wrong_gradients_of_outputs_are_told_as_they_were_given(make_session: Any) -> None:
    session = make_session(sides(PARTS))
    name = session.forward(UNBOUNDED, ForwardCall(given(), ("y",))).forward_id
    before = session.digest(UNBOUNDED)
    with pytest.raises(ShapeMismatch, match=r"has shape \[11, 3\]; the output is float32\[11, 2\]"):
        backward(session, name, output_gradients={"y": np.ones((EXAMPLES, 3), np.float32)})
    with pytest.raises(UnknownOutput, match="no output 'z'"):
        backward(session, name, output_gradients={"z": SEEDS["y"]})
    with pytest.raises(NotSplittable, match="output 'high'") as caught:
        backward(session, name, output_gradients={"high": np.array(1, np.int32)})
    assert caught.value.field == "output_gradients[high]"
    assert session.digest(UNBOUNDED) == before
    assert backward(session, name).contributions == 1


@pytest.mark.usefixtures("alone")
def test_a_pass_has_the_parts_of_its_forward_and_keeps_them(make_session: Any) -> None:
    calls, steps = make_session(network(2)), make_session(network(2))
    for number, parts in enumerate([1, 4, 0]):
        name = forward(calls, number, data_parallel=parts)
        backward(calls, name)
        calls.step(UNBOUNDED, StepOptions())
        step(steps, number, parts)
        assert calls.digest(UNBOUNDED) == steps.digest(UNBOUNDED)
    made = make_session(sides(PARTS)).forward(UNBOUNDED, ForwardCall(given(), data_parallel=1))
    assert made.outputs["high"].dtype == np.int32


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("parts", [0, PARTS])
def test_gradients_of_a_graph_without_a_loss_and_by_inputs_that_were_not_given(make_session: Any, parts: int) -> None:
    x, z = bw.input("x", ("batch", 4)), bw.input("z", ("batch", 2))
    y = bw.dense(x, 2, name="top")
    graph = bw.graph(outputs={"y": y, "product": y * z}).proto
    asked = pb.CreateSessionRequest(graph=graph, optimizer=bw.SGD(0.1).to_proto(), data_parallel=parts)
    session = make_session(session_spec(asked, Limits()))
    made = session.forward(UNBOUNDED, ForwardCall({"x": given()["x"]}, ("y",)))
    assert made.loss is None
    for missing in ({"wrt": ("z",)}, {"wrt": ("x",), "output_gradients": {"product": SEEDS["y"]}}):
        with pytest.raises(MissingInput, match="not given"):
            backward(session, made.forward_id, **{"output_gradients": {"y": SEEDS["y"]}, **missing})
    found = backward(session, made.forward_id, output_gradients={"y": SEEDS["y"]}, wrt=("x",)).input_gradients["x"]
    with session.parameters(UNBOUNDED) as values:
        weight = dict(values)["top/weight"].copy()
    np.testing.assert_allclose(found, SEEDS["y"] @ weight.T, rtol=1e-5)


@pytest.mark.parametrize("parts", [-1, 257])
def test_a_number_of_parts_that_cannot_be_is_refused(make_session: Any, parts: int) -> None:
    session = make_session(network())
    with pytest.raises(errors.InvalidRequest, match="data_parallel"):
        forward(session, 0, forward_id="f", data_parallel=parts)
    with pytest.raises(errors.PassNotFound):
        backward(session, "f")
