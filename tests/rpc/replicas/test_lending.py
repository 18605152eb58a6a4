"""Parts of batches that another server computes, here in the same process: what is sent, refused, and ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.rpc.replicas.lenders import BUSY, EXAMPLES, HUGE, READY, SECRET, answering, batch, lending, network
from tests.rpc.replicas.serving import encrypting

import backwire as bw
from backwire_api.v1 import peer_pb2
from backwire_server.config_parts import Access, Capacity
from backwire_server.parallel import pace
from backwire_server.parallel.crew import CREW
from backwire_server.rpc.replicas import peers
from backwire_server.rpc.replicas.connections import Connections
from backwire_server.rpc.replicas.peers import Peers
from backwire_server.rpc.server import Server
from backwire_server.sessions.limits import Limits

SECONDS = 60.0
PARTS = 3
PAUSE = 0.02  # between steps that wait for something: all are done again, and it needs a processor, too

Trainee = Callable[..., bw.Session]


@pytest.fixture
def trainee(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainee]:
    """Makes a session whose parts go to a server, however short they are."""
    monkeypatch.setattr(pace, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(pace.Pace, "pays", lambda _self, waiting, _hands: waiting > 1)
    monkeypatch.setattr(pace, "PATIENCE_SECONDS", SECONDS)
    with ExitStack() as stack:
        server = Server("127.0.0.1:0", Limits(), Capacity())
        stack.callback(server.stop, SECONDS)
        client = stack.enter_context(bw.connect(server.address))

        def make(address: str, access: Access | None = None, secret: bytes = SECRET) -> bw.Session:
            connections = Connections(access or Access())
            elsewhere = Peers(2, lambda: [address], secret, connections, dict)
            stack.callback(connections.close)
            stack.callback(elsewhere.close)
            monkeypatch.setattr(CREW, "elsewhere", elsewhere)
            monkeypatch.setattr(CREW, "most", 0)
            return client.create_session(network(), bw.Adam(0.05), seed=7, data_parallel=PARTS)

        yield make


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[bw.Client]:
    """A client of a server whose batches nobody else computes."""
    with bw.connect("embedded") as client:
        yield client


def train_until(session: bw.Session, reached: Callable[[], bool]) -> int:
    """Trains until something is so, and returns how many steps that took."""
    deadline, steps = time.monotonic() + SECONDS, 0
    while not reached():
        assert time.monotonic() < deadline
        session.train_step(batch(steps), outputs=["logits"])
        steps += 1
        time.sleep(PAUSE)
    return steps


def check(session: bw.Session, undisturbed: bw.Client, steps: int) -> None:
    """Holds a session against one whose batches nobody else computes."""
    with undisturbed.create_session(network(), bw.Adam(0.05), seed=7, data_parallel=PARTS) as alone:
        for number in range(steps):
            expected = alone.train_step(batch(number), outputs=["logits"])
        assert alone.digest() == session.digest()
        assert alone.train_step(batch(99)).loss == session.train_step(batch(99)).loss
        assert expected.outputs["logits"].shape == (EXAMPLES, 3)


def test_parts_of_servers_that_encrypt_have_the_same_bits(
    trainee: Trainee, undisturbed: bw.Client, tmp_path: Path
) -> None:
    access, _ = encrypting(tmp_path)
    with lending(access=access) as lender:
        session = trainee(lender.address, access)
        steps = train_until(session, lambda: lender.crew.lent >= 5)
        assert CREW.elsewhere is not None
        sent, received = CREW.elsewhere.traffic
        assert sent > received > 0, "inputs and the graph are sent, too"
        check(session, undisturbed, steps)


def in_calls(session: bw.Session, number: int, lent: Callable[[], int] = lambda: 0) -> tuple[list[int], dict[str, Any]]:
    """Steps by calls of their own; returns what was computed elsewhere for each of them, and what they gave."""
    counts = [lent()]
    made = session.forward(batch(number), data_parallel=PARTS)
    counts.append(lent())
    first = made.backward(wrt=("x",), retain=True)
    counts.append(lent())
    session.step()
    seed = np.random.default_rng(number).normal(size=(EXAMPLES, 3)).astype(np.float32)
    later = made.backward({"logits": seed}, wrt=("x",))
    counts.append(lent())
    session.step()
    given = {"loss": made.loss, "logits": made.outputs["logits"], "first": first["x"], "later": later["x"]}
    return list(np.diff(counts)), given


def test_parts_of_calls_of_their_own_have_the_same_bits(trainee: Trainee, undisturbed: bw.Client) -> None:
    with lending() as lender:
        session = trainee(lender.address)
        alone = undisturbed.create_session(network(), bw.Adam(0.05), seed=7, data_parallel=PARTS)
        deadline, elsewhere, number = time.monotonic() + SECONDS, np.zeros(3, int), 0
        while min(elsewhere) < 5:
            assert time.monotonic() < deadline
            counts, given = in_calls(session, number, lambda: lender.crew.lent)
            elsewhere, number = elsewhere + counts, number + 1
            for name, expected in in_calls(alone, number - 1)[1].items():
                np.testing.assert_array_equal(given[name], expected, name)
            time.sleep(PAUSE)
        assert session.digest() == alone.digest()


def test_a_forward_sends_no_gradients_and_its_backward_no_parameters_again(trainee: Trainee) -> None:
    with lending() as lender:
        session = trainee(lender.address)
        peers = CREW.elsewhere
        assert peers is not None
        vectors = sum(array.nbytes for name, array in session.parameters().items() if name != "scale")
        train_until(session, lambda: lender.crew.lent >= 2)
        deadline = time.monotonic() + SECONDS
        sent = received = vectors
        while sent >= vectors or received >= vectors:
            assert time.monotonic() < deadline
            before, lent = peers.traffic, lender.crew.lent
            made = session.forward(batch(0), outputs=["logits"])
            if lender.crew.lent > lent:
                received = min(received, peers.traffic[1] - before[1])
            before, lent = peers.traffic, lender.crew.lent
            made.backward()
            if lender.crew.lent > lent:
                sent = min(sent, peers.traffic[0] - before[0])


def test_a_server_without_memory_or_helpers_computes_nothing_and_steps_go_on(
    trainee: Trainee, undisturbed: bw.Client
) -> None:
    for most, nbytes in ((0, 1 << 30), (1, 100)):
        with lending(most, nbytes) as lender:
            session = trainee(lender.address)
            for number in range(20):
                session.train_step(batch(number))
            assert lender.crew.lent == 0
            check(session, undisturbed, 20)


def test_memory_of_others_counts_while_their_stream_is_open(trainee: Trainee) -> None:
    with lending() as lender:
        session = trainee(lender.address)
        train_until(session, lambda: lender.crew.lent >= 2)
        assert lender.budget.used > 0
        assert CREW.elsewhere is not None
        CREW.elsewhere.close()
        deadline = time.monotonic() + SECONDS
        while lender.budget.used:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_server_with_another_secret_is_not_used_and_that_is_said_once(
    trainee: Trainee, caplog: pytest.LogCaptureFixture
) -> None:
    with lending() as lender:
        session = trainee(lender.address, secret=b"another")
        train_until(session, lambda: "does not prove that it shares the data directory" in caplog.text)
        for number in range(20):
            session.train_step(batch(number))
        assert caplog.text.count("does not prove that it shares the data directory") == 1
        assert lender.crew.lent == 0


def test_a_server_that_ends_takes_no_more_parts(trainee: Trainee, undisturbed: bw.Client) -> None:
    with lending() as lender:
        session = trainee(lender.address)
        steps = train_until(session, lambda: lender.crew.lent >= 2)
        lender.lending.drain(SECONDS)
        lent = lender.crew.lent
        for number in range(steps, steps + 20):
            session.train_step(batch(number))
        assert lender.crew.lent == lent
        check(session, undisturbed, steps + 20)


@pytest.mark.parametrize(
    "answers",
    [
        (READY,),
        (BUSY, BUSY),
        (peer_pb2.ComputePartsResponse(result=peer_pb2.PartResult()),),
        (peer_pb2.ComputePartsResponse(result=peer_pb2.PartResult(outputs=[HUGE])),),
        (peer_pb2.ComputePartsResponse(chunk=b"nothing that was asked for"),),
    ],
)
def test_a_server_that_answers_nonsense_leaves_no_trace(
    trainee: Trainee, undisturbed: bw.Client, answers: tuple[peer_pb2.ComputePartsResponse, ...]
) -> None:
    with answering(*answers) as (asked, address):
        session = trainee(address)
        steps = train_until(session, lambda: bool(asked))
        for number in range(steps, steps + 5):
            session.train_step(batch(number), outputs=["logits"])
        check(session, undisturbed, steps + 5)


def test_a_server_that_does_not_prove_that_it_shares_the_directory_is_sent_nothing(
    trainee: Trainee, undisturbed: bw.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with answering(BUSY, secret=b"another") as (asked, address):
        session = trainee(address)
        steps = train_until(session, lambda: "it does not prove that it shares the data directory" in caplog.text)
        for number in range(steps, steps + 5):
            session.train_step(batch(number))
        assert not asked
        check(session, undisturbed, steps + 5)


def test_steps_go_on_where_there_are_no_descriptors_for_streams(
    trainee: Trainee,
    undisturbed: bw.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("too many open files")

    with lending() as lender:
        session = trainee(lender.address)
        with monkeypatch.context() as patch:
            patch.setattr(peers, "PeerRemote", refuse)
            for number in range(3):
                session.train_step(batch(number))
        assert caplog.text.count("which is done here: too many open files") == 1
        check(session, undisturbed, 3)
