"""A batch that is computed in parts gives what its parts give as micro-batches, to the bit, whoever computes them."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.storage.durable import Disk

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.errors import InvalidValue, NotSplittable, ShapeMismatch
from backwire_server.messages.session import session_spec
from backwire_server.parallel import crew
from backwire_server.parallel.crew import Crew
from backwire_server.parallel.segment import Segment
from backwire_server.sessions import errors, sources
from backwire_server.sessions.accumulator import Normalization
from backwire_server.sessions.calls import BackwardCall, ForwardCall, SetCall, StepOptions, TrainCall, TrainResult
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec

SECONDS = 60.0
PAUSE = 0.02  # between steps that wait for helpers: all are done again, and helpers need a processor to start on, too
EXAMPLES = 11


def network(data_parallel: int = 0) -> SessionSpec:
    """A network with Dropout, classes and a frozen parameter, whose results depend on each pass's number."""
    x, labels = bw.input("x", ("batch", 4)), bw.input("labels", ("batch",), dtype="int64")
    table = bw.parameter("table", np.linspace(0.5, 1.5, 4, dtype=np.float32), frozen=True)
    logits = bw.dense(bw.dropout(bw.tanh(bw.dense(x * table, 6, name="in"))), 3, name="out")
    graph = bw.graph(loss=bw.softmax_cross_entropy(logits, labels), outputs={"logits": logits})
    asked = pb.CreateSessionRequest(
        graph=graph.proto, optimizer=bw.Adam(0.05).to_proto(), seed=7, data_parallel=data_parallel
    )
    return session_spec(asked, Limits())


def batch(number: int, examples: int = EXAMPLES) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {
        "x": draw.normal(size=(examples, 4)).astype(np.float32),
        "labels": draw.integers(0, 3, size=examples),
    }


def step(session: Session, number: int, parts: int = 0, **call: Any) -> TrainResult:
    return session.train_step(UNBOUNDED, TrainCall(batch(number), data_parallel=parts, **call))


def by_hand(session: Session, number: int, parts: int) -> None:
    """Does what a step in parts does as calls of its own."""
    rows = np.array_split(np.arange(EXAMPLES), parts)
    for each in rows:
        part = {name: array[each] for name, array in batch(number).items()}
        made = session.forward(UNBOUNDED, ForwardCall(part))
        session.backward(UNBOUNDED, BackwardCall(made.forward_id, weight=float(len(each))))
    session.step(UNBOUNDED, StepOptions(normalization=Normalization.MEAN))


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def trained(session: Session, helpers: Crew, parts: int = 0, more: int = 3) -> int:
    """Trains until helpers have computed more parts, and returns how many steps that took."""
    enough, deadline, steps = helpers.helped + more, time.monotonic() + SECONDS, 0
    while helpers.helped < enough:
        assert time.monotonic() < deadline, "no helper computed anything"
        step(session, steps, parts)
        steps += 1
        time.sleep(PAUSE)
    return steps


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


class TestHelpers:
    def test_compute_the_same_bits(self, make_session: Any, helpers: Crew) -> None:
        session, hand = make_session(network(3)), make_session(network())
        for number in range(trained(session, helpers, more=8)):
            by_hand(hand, number, 3)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_read_parameters_that_were_set_or_are_frozen(self, make_session: Any, helpers: Crew) -> None:
        session, hand = make_session(network(3)), make_session(network())
        count = trained(session, helpers)
        for number in range(count):
            by_hand(hand, number, 3)
        values = {"table": np.full(4, 2.0, np.float32), "in/bias": np.full(6, 0.25, np.float32)}
        with session.parameters(UNBOUNDED):  # a reader, for whom what is set is written elsewhere
            for each in (session, hand):
                each.set_parameters(UNBOUNDED, SetCall(values).values)
        for number in range(trained(session, helpers)):
            by_hand(hand, number, 3)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_that_are_killed_are_replaced_and_the_step_is_done_once(
        self, make_session: Any, helpers: Crew, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(crew, "RESTART_SECONDS", 0.1)  # one that ends while it starts would have others wait
        session, hand = make_session(network(3)), make_session(network())
        numbers = list(range(trained(session, helpers)))
        for while_they_compute in (False, True):
            doomed = helpers.pids
            assert doomed
            for pid in doomed:
                os.kill(pid, signal.SIGSTOP if while_they_compute else signal.SIGKILL)
            killer = threading.Timer(0.2 * while_they_compute, kill, [doomed])
            killer.start()
            step(session, len(numbers))  # a part that was given to a process that stands still waits for its end
            killer.join()
            numbers.append(len(numbers))
            numbers += range(trained(session, helpers))
            assert not set(doomed) & set(helpers.pids)
        for number in numbers:
            by_hand(hand, number, 3)
        assert session.info().step == len(numbers)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_leave_it_to_the_session_to_say_what_is_wrong(self, make_session: Any, helpers: Crew) -> None:
        session = make_session(network(3))
        trained(session, helpers)
        before = session.digest(UNBOUNDED)
        wrong = batch(0)
        wrong["labels"][-1] = 7
        for _ in range(3):
            with pytest.raises(InvalidValue, match="7"):
                session.train_step(UNBOUNDED, TrainCall(wrong))
        assert session.digest(UNBOUNDED) == before
        assert trained(session, helpers) > 0

    def test_serve_several_sessions(self, make_session: Any, helpers: Crew) -> None:
        sessions = [make_session(network(3)) for _ in range(6)]  # more than a helper knows at a time
        counts = [trained(session, helpers) for session in (*sessions, sessions[0])]
        for session, count in zip(sessions[1:], counts[1:], strict=False):
            hand = make_session(network())
            for number in range(count):
                by_hand(hand, number, 3)
            assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_serve_sessions_at_the_same_time(self, make_session: Any, helpers: Crew) -> None:
        sessions = [make_session(network(3)) for _ in range(4)]
        trained(sessions[0], helpers)
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda session: [step(session, number) for number in range(20)], sessions[1:]):
                pass
        hand = make_session(network())
        for number in range(20):
            by_hand(hand, number, 3)
        assert {session.digest(UNBOUNDED) for session in sessions[1:]} == {hand.digest(UNBOUNDED)}

    def test_go_on_after_a_call_that_ended(self, make_session: Any, helpers: Crew, scope: Any) -> None:
        session, hand = make_session(network(3)), make_session(network())
        numbers = list(range(trained(session, helpers)))
        with pytest.raises(errors.Cancelled):
            session.train_step(scope(checks=1), TrainCall(batch(50)))
        numbers += range(trained(session, helpers))
        for number in numbers:
            by_hand(hand, number, 3)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


def test_a_recovered_session_has_the_same_bits_whatever_the_parts_were(tmp_path: Path, helpers: Crew) -> None:
    with Disk(tmp_path) as disk:
        store = disk.open()
        session = store.get(store.create(UNBOUNDED, network(3)).session_id)
        trained(session, helpers)
        for number, parts in enumerate([2, 4, 1, 0]):
            step(session, number, parts)
        before = session.digest(UNBOUNDED)
        crew.CREW.most = 0
        helpers.close()
        again = disk.open().get(session.session_id)
        assert again.info().data_parallel == 3
        assert again.digest(UNBOUNDED) == before
