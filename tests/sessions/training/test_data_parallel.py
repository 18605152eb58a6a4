"""A batch that is computed in parts gives what its parts give as micro-batches, to the bit, whoever computes them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.sessions.parted_steps import EXAMPLES, batch, by_hand, network, step

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.errors import NotSplittable, ShapeMismatch
from backwire_server.messages.session import session_spec
from backwire_server.parallel.segment import Segment
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.training import sources
from backwire_server.sessions.training.accumulator import Normalization


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_are_micro_batches_weighted_by_their_examples(make_session: Any, parts: int) -> None:
    whole, hand = make_session(network(parts)), make_session(network())
    for number in range(4):
        step(whole, number)
        by_hand(hand, number, parts)
        assert whole.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


@pytest.mark.usefixtures("alone")
def test_loss_and_outputs_are_those_of_the_whole_batch(make_session: Any) -> None:
    x, t = bw.input("x", ("batch", 4)), bw.input("t", ("batch", 1))
    y = bw.dense(bw.tanh(bw.dense(x, 6, name="in")), 1, name="out")
    graph = bw.graph(loss=bw.squared_error(y, t), outputs={"y": y, "mean": bw.mean(y)})
    spec = session_spec(pb.CreateSessionRequest(graph=graph.proto, optimizer=bw.SGD(0.1).to_proto()), Limits())
    call = TrainCall({"x": batch(0)["x"], "t": np.ones((EXAMPLES, 1), np.float32)}, ("y", "mean"))
    once = make_session(spec).train_step(UNBOUNDED, call)
    parts = make_session(replace(spec, data_parallel=3)).train_step(UNBOUNDED, call)
    assert parts.loss == pytest.approx(once.loss, rel=1e-6)
    assert parts.result.gradient_norm == pytest.approx(once.result.gradient_norm, rel=1e-5)
    assert (parts.result.contributions, parts.outputs["y"].shape) == (1, (EXAMPLES, 1))
    for name in ("y", "mean"):
        np.testing.assert_allclose(parts.outputs[name], once.outputs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("alone")
def test_what_the_loss_does_not_depend_on_has_no_part_in_the_norm_of_the_mean(make_session: Any) -> None:
    used, unused = (bw.parameter(name, np.ones(3, "f4")) for name in ("used", "unused"))
    x = bw.input("x", ("batch", 3))
    graph = bw.graph(loss=bw.mean(bw.sum(used * x, axis=1)), outputs={"unused": bw.sum(unused * x, axis=1)})
    spec = session_spec(pb.CreateSessionRequest(graph=graph.proto, optimizer=bw.Adam(0.1).to_proto()), Limits())
    call, whole = TrainCall({"x": np.arange(12, dtype="f4").reshape(4, 3)}), make_session(spec)
    parts = make_session(replace(spec, data_parallel=2))
    seeded = ForwardCall(call.inputs), {"unused": np.full(4, 1e6, "f4")}
    for session in (whole, parts):  # leaves gradients of both where the next are put
        made = session.forward(UNBOUNDED, seeded[0])
        session.backward(UNBOUNDED, BackwardCall(made.forward_id, output_gradients=seeded[1]))
        session.zero_gradients(UNBOUNDED)
    norms = [session.train_step(UNBOUNDED, call).result.gradient_norm for session in (whole, parts)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6) == pytest.approx(np.linalg.norm([4.5, 5.5, 6.5]))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("normalization", Normalization)
@pytest.mark.parametrize(("weights", "weight"), [([], 2.0), ([1.0], 1.0), ([3.0, 1.0], 2.0)])
def test_the_norm_is_that_of_all_that_is_applied(
    make_session: Any, weights: list[float], weight: float, normalization: Normalization
) -> None:
    w, x = bw.parameter("w", np.zeros(3, "f4")), np.arange(12, dtype="f4").reshape(4, 3)
    graph = bw.graph(loss=bw.mean(bw.sum(w * bw.input("x", ("batch", 3)), axis=1)))
    spec = session_spec(pb.CreateSessionRequest(graph=graph.proto, optimizer=bw.SGD(0.1).to_proto()), Limits())
    session = make_session(replace(spec, data_parallel=2))
    for each in weights:
        made = session.forward(UNBOUNDED, ForwardCall({"x": x}))
        session.backward(UNBOUNDED, BackwardCall(made.forward_id, weight=each))
    call = TrainCall({"x": x}, weight=weight, options=StepOptions(normalization=normalization))
    total = sum(weights) + weight if normalization is Normalization.SUM else 1.0
    expected = total * np.linalg.norm(x.mean(axis=0))
    assert session.train_step(UNBOUNDED, call).result.gradient_norm == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("alone")
def test_a_step_in_parts_takes_part_in_what_was_accumulated(make_session: Any) -> None:
    sessions = make_session(network(3)), make_session(network())
    for session in sessions:
        made = session.forward(UNBOUNDED, ForwardCall(batch(9)))
        session.backward(UNBOUNDED, BackwardCall(made.forward_id, weight=2.0))
    found = [step(session, 0, weight=0.5).result for session in sessions]
    assert [each.contributions for each in found] == [2, 2]
    unlike = step(make_session(network()), 0).result
    assert found[0].gradient_norm != pytest.approx(unlike.gradient_norm, rel=1e-2)


@pytest.mark.usefixtures("alone")
def test_the_number_of_parts_may_change_from_step_to_step(make_session: Any) -> None:
    elastic, hand = make_session(network(2)), make_session(network())
    for number, parts in enumerate([0, 4, 3, 0]):
        step(elastic, number, parts)
        by_hand(hand, number, parts or 2)
    step(elastic, 5, 1)
    step(hand, 5)
    assert elastic.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


@pytest.mark.parametrize("parts", [-1, 257])
def test_a_number_of_parts_that_cannot_be_is_refused(make_session: Any, parts: int) -> None:
    with pytest.raises(errors.InvalidRequest, match="data_parallel"):
        step(make_session(network()), 0, parts)
    with pytest.raises(errors.InvalidRequest, match="data_parallel"):
        replace(network(), data_parallel=parts).check(Limits())


def test_a_session_of_a_graph_whose_batches_cannot_be_cut_is_refused(make_session: Any, dot: Any) -> None:
    with pytest.raises(NotSplittable, match="no input of the graph has a first axis of any size"):
        make_session(replace(dot(), data_parallel=2))
    with pytest.raises(NotSplittable):
        make_session(dot()).train_step(UNBOUNDED, TrainCall({"x": np.ones(3)}, data_parallel=2))


@pytest.mark.usefixtures("alone")
def test_wrong_inputs_are_told_as_they_were_given(make_session: Any) -> None:
    session = make_session(network(2))
    with pytest.raises(ShapeMismatch, match=r"was given shape \[11, 5\]"):
        session.train_step(UNBOUNDED, TrainCall({**batch(0), "x": np.ones((EXAMPLES, 5), np.float32)}))
    with pytest.raises(ShapeMismatch, match="dimension batch is 11"):
        session.train_step(UNBOUNDED, TrainCall({**batch(0), "labels": np.zeros(4, np.int64)}))


@pytest.mark.usefixtures("alone")
def test_memory_that_the_system_does_not_give_is_told_and_changes_nothing(
    make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(network(2))
    before = session.digest(UNBOUNDED)

    def refuse(_: int) -> Segment:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(sources, "Segment", refuse)
        with pytest.raises(errors.OutOfMemory, match="Too many open files"):
            step(session, 0)
    assert session.digest(UNBOUNDED) == before
    assert step(session, 0).result.step == 1


@pytest.mark.usefixtures("alone")
def test_the_memory_for_parts_counts_as_that_of_the_session(make_session: Any) -> None:
    session, other = make_session(network(4)), make_session(network())
    for each in (session, other):
        step(each, 0)
    assert session.nbytes > other.nbytes
    step(session, 1, 2)
    less = session.nbytes
    step(session, 1, 4)
    assert other.nbytes < less < session.nbytes
    with pytest.raises(errors.OutOfMemory):
        step(make_session(network(256), max_total_bytes=session.nbytes), 0)
