"""Forward and Backward of a session in parts give what TrainStep gives, and micro-batches by hand, to the bit."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from tests.sessions.test_data_parallel import EXAMPLES, PAUSE, SECONDS, batch, by_hand, network, step, trained
from tests.storage.durable import ALWAYS, Disk

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.errors import MissingInput, NotSplittable, ShapeMismatch, UnknownOutput
from backwire_server.engine.stopping import Stop
from backwire_server.messages.session import session_spec
from backwire_server.parallel import crew
from backwire_server.parallel.crew import Crew
from backwire_server.parallel.shift import Local
from backwire_server.parallel.task import Result, Work
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec

PARTS = 3


def forward(session: Session, number: int, **call: Any) -> str:
    return session.forward(UNBOUNDED, ForwardCall(batch(number), **call)).forward_id


def backward(session: Session, name: str, **call: Any) -> Any:
    return session.backward(UNBOUNDED, BackwardCall(name, **call))


def in_calls(session: Session, number: int) -> None:
    """Does a step as calls of its own."""
    backward(session, forward(session, number))
    session.step(UNBOUNDED, StepOptions())


def late(session: Session, number: int) -> dict[str, Any]:
    """Steps by a pass and then by gradients of it with older parameters; returns those of inputs."""
    name = session.forward(UNBOUNDED, ForwardCall(given(number), ("y",))).forward_id
    backward(session, name, retain=True)
    session.step(UNBOUNDED, StepOptions())
    seeds = {each: SEEDS[each] for each in ("y", "loss")}
    found = backward(session, name, output_gradients=seeds, wrt=("x", "scale")).input_gradients
    session.step(UNBOUNDED, StepOptions(learning_rate=0.01))
    return dict(found)


def sides(data_parallel: int = 0) -> SessionSpec:
    """A graph with outputs per example, of a mean and of a count, with an input that all examples share."""
    x, t, scale = bw.input("x", ("batch", 4)), bw.input("t", ("batch", 2)), bw.input("scale", (2,))
    y = bw.dense(bw.tanh(bw.dense(x, 6, name="in")), 2, name="out") * scale
    outputs = {"y": y, "mean": bw.mean(y * y), "high": bw.sum(bw.cast(y > t, "int32"))}
    graph = bw.graph(loss=bw.squared_error(y, t), outputs=outputs)
    asked = pb.CreateSessionRequest(graph=graph.proto, optimizer=bw.SGD(0.1).to_proto(), data_parallel=data_parallel)
    return session_spec(asked, Limits())


def given(number: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    shapes = {"x": (EXAMPLES, 4), "t": (EXAMPLES, 2), "scale": (2,)}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


SEEDS = {
    "y": np.random.default_rng(5).normal(size=(EXAMPLES, 2)).astype(np.float32),
    "mean": np.array(0.75, np.float32),
    "loss": np.array(-1.5, np.float32),
}


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


def test_parts_of_all_calls_may_go_to_other_nodes_by_the_pace_of_each_kind_of_call(
    make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Work]()

    class Asked(Crew):
        def compute(self, work: Work, local: Local, stop: Stop) -> list[Result]:
            asked.append(work)
            return super().compute(work, local, stop)

    monkeypatch.setattr(crew, "CREW", Asked(0))
    session = make_session(network(PARTS))
    for number in range(2):
        in_calls(session, number)
        step(session, number)
    assert all(work.definition for work in asked)
    forwards, backwards, steps = (asked[kind].pace for kind in range(3))
    assert len({id(pace) for pace in (forwards, backwards, steps)}) == 3
    assert [id(work.pace) for work in asked] == 2 * [id(pace) for pace in (forwards, backwards, steps)]
    assert 0 < forwards.nbytes <= backwards.nbytes, "a Backward in parts makes the pass, too"
    assert steps.nbytes > 0


@pytest.mark.parametrize("parts", [-1, 257])
def test_a_number_of_parts_that_cannot_be_is_refused(make_session: Any, parts: int) -> None:
    session = make_session(network())
    with pytest.raises(errors.InvalidRequest, match="data_parallel"):
        forward(session, 0, forward_id="f", data_parallel=parts)
    with pytest.raises(errors.PassNotFound):
        backward(session, "f")


class TestHelpers:
    def test_compute_the_same_bits(self, make_session: Any, helpers: Crew) -> None:
        session, hand = make_session(network(PARTS)), make_session(network())
        count = trained(session, helpers)
        deadline, enough = time.monotonic() + SECONDS, helpers.helped + 12
        while helpers.helped < enough:
            assert time.monotonic() < deadline
            in_calls(session, count)
            count += 1
            time.sleep(PAUSE)
        for number in range(count):
            by_hand(hand, number, PARTS)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_differentiate_passes_of_before_steps(self, make_session: Any, helpers: Crew) -> None:
        helped, alone = make_session(sides(PARTS)), make_session(sides(PARTS))
        found = list[dict[str, Any]]()
        deadline, enough = time.monotonic() + SECONDS, 12
        while helpers.helped < enough:
            assert time.monotonic() < deadline
            found.append(late(helped, len(found)))
            time.sleep(PAUSE)
        helpers.most = 0
        helpers.close()
        for number, gradients in enumerate(found):
            for name, array in late(alone, number).items():
                np.testing.assert_array_equal(gradients[name], array)
        assert helped.digest(UNBOUNDED) == alone.digest(UNBOUNDED)

    def test_read_parameters_of_a_pass_that_was_restored(self, tmp_path: Path, helpers: Crew) -> None:
        with Disk(tmp_path) as disk:
            store = disk.open(checkpoint_bytes=ALWAYS)
            session = store.get(store.create(UNBOUNDED, network(PARTS)).session_id)
            forward(session, 0, forward_id="late", data_parallel=4)
            trained(session, helpers)
            again = disk.open().get(session.session_id)
            backward(again, "late", retain=True)
            expected = again.digest(UNBOUNDED)
            deadline, enough = time.monotonic() + SECONDS, helpers.helped + 4
            while helpers.helped < enough:
                assert time.monotonic() < deadline
                again.zero_gradients(UNBOUNDED)
                backward(again, "late", retain=True)
                assert again.digest(UNBOUNDED) == expected
            helpers.most = 0
            helpers.close()
            again.zero_gradients(UNBOUNDED)
            backward(again, "late")
            assert again.digest(UNBOUNDED) == expected

    def test_go_on_after_a_call_that_ended(self, make_session: Any, helpers: Crew, scope: Any) -> None:
        session, hand = make_session(network(PARTS)), make_session(network())
        count = trained(session, helpers)
        with pytest.raises(errors.Cancelled):
            session.forward(scope(checks=1), ForwardCall(batch(50)))
        name = forward(session, count)
        with pytest.raises(errors.Cancelled):
            session.backward(scope(checks=1), BackwardCall(name))
        backward(session, name)
        session.step(UNBOUNDED, StepOptions())
        for number in range(count + 1):
            by_hand(hand, number, PARTS)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


def test_a_recovered_session_has_the_same_bits_and_its_live_passes(
    tmp_path: Path, helpers: Crew, make_session: Any
) -> None:
    with Disk(tmp_path) as disk:
        store = disk.open()
        session = store.get(store.create(UNBOUNDED, network(PARTS)).session_id)
        count = trained(session, helpers)
        in_calls(session, 5)
        forward(session, 6, forward_id="live", data_parallel=2)
        step(session, 7)
        helpers.most = 0
        helpers.close()
        again, undisturbed = disk.open().get(session.session_id), make_session(network(PARTS))
        for number in range(count):
            step(undisturbed, number)
        in_calls(undisturbed, 5)
        forward(undisturbed, 6, forward_id="live", data_parallel=2)
        step(undisturbed, 7)
        for each in (again, undisturbed):
            backward(each, "live")
            each.step(UNBOUNDED, StepOptions())
        assert again.digest(UNBOUNDED) == undisturbed.digest(UNBOUNDED)
