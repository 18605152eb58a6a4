"""Parts of batches that another replica computes: the bits are those of one server alone, whatever happens to it."""

import contextlib
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.trainees import Replica

import backwire as bw
from backwire_api.v1 import peer_pb2, peer_pb2_grpc

SECONDS = 120.0
PARTS, EXAMPLES, WIDTH = 2, 20, 512
MANY = 2_000  # whose parts are computed for a while
PAUSE = 0.05
"""Between steps that wait for a helper: all are done again, and helpers need a processor to start on, too."""

FLAGS = ("--workers", "1", "--shared", "--lease", "1s", "--metrics-listen", "127.0.0.1:0", "--peer-helpers", "2")
EAGER = "tests.cluster.eager"


def network() -> bw.Graph:
    """A network whose parts take longer than what is never sent, where a batch has a thousand examples."""
    x, y = bw.input("x", ("batch", WIDTH)), bw.input("y", ("batch",), dtype="int64")
    scale = bw.parameter("scale", np.linspace(0.5, 1.5, WIDTH, dtype=np.float32), frozen=True)
    h = bw.dropout(bw.relu(bw.dense(x * scale, WIDTH, name="hidden")), 0.25)
    h = bw.relu(bw.dense(h, WIDTH, name="deeper"))
    logits = bw.dense(h, 3, name="top")
    return bw.graph(loss=bw.softmax_cross_entropy(logits, y), outputs={"logits": logits})


def batch(number: int, examples: int = EXAMPLES) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {"x": draw.normal(size=(examples, WIDTH)).astype(np.float32), "y": draw.integers(0, 3, size=examples)}


def in_calls(session: bw.Session, number: int, between: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Steps by calls of their own, and does something between Forward and Backward; returns what the calls gave."""
    made = session.forward(batch(number))
    between()
    seed = np.random.default_rng(number).normal(size=(EXAMPLES, 3)).astype(np.float32)
    by_loss = made.backward(wrt=("x",), retain=True)["x"]
    by_logits = made.backward({"logits": seed}, wrt=("x",))["x"]
    session.step()
    return {"loss": made.loss, "logits": made.outputs["logits"], "by loss": by_loss, "by logits": by_logits}


def figure(replica: Replica, name: str, **labels: str) -> float:
    """What a replica tells now in its metrics."""
    (address,) = re.findall(r"metrics on (\S+?/metrics)", replica.log)
    with urllib.request.urlopen(f"http://{address}", timeout=SECONDS) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = {(each.name, *each.labels.items()): each.value for family in families for each in family.samples}
    return float(samples[name, *labels.items()])


def _changed(environment: dict[str, str]) -> tuple[str, ...]:
    """Returns what runs the command that follows with these variables."""
    return ("env", *(f"{name}={value}" for name, value in environment.items())) if environment else ()


class Pair:
    """Two replicas, of which `a` has no helpers of its own, and a session that `a` trains in parts."""

    def __init__(self, directory: Path, environment: dict[str, str] | None = None) -> None:
        """Has the other replica start in an environment that differs, if it does."""
        self.a = Replica(directory, "--replica", "a", *FLAGS, "--max-helpers", "0", module=EAGER)
        self.b = Replica(
            directory, "--replica", "b", *FLAGS, "--max-helpers", "1", within=_changed(environment or {}), module=EAGER
        )

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Has both serve."""
        with self.b, self.a:
            yield self

    @contextmanager
    def trained(self) -> Iterator[None]:
        """Has a session be there, and both serve again at its end."""
        with bw.connect(self.a.address) as client:
            self.done, self._large = 0, set[int]()
            with client.create_session(network(), bw.Adam(0.001), seed=5, data_parallel=PARTS) as self.session:
                yield
        self.b.ensure()

    def train(self, steps: int = 1) -> None:
        for _ in range(steps):
            assert self.session.train_step(batch(self.done)).step == self.done + 1
            self.done += 1

    def give_up(self) -> None:
        """Trains on a large batch, and gives that up while it is computed."""
        step = self.done
        with contextlib.suppress(bw.DeadlineExceededError):
            self.session.train_step(batch(step, MANY), timeout=0.02)
        self.done = self.session.info().step  # it may have been done all the same
        if self.done > step:
            self._large.add(step)

    def train_until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not reached():
            assert time.monotonic() < deadline
            self.train()
            time.sleep(PAUSE)

    def sent(self) -> float:
        """How many parts the other replica has computed for `a`."""
        return figure(self.a, "backwire_parts_total", by="peer")

    def train_more_elsewhere(self, parts: int = 3) -> None:
        """Trains until the other replica has computed more parts."""
        enough = self.sent() + parts
        self.train_until(lambda: self.sent() >= enough)

    def check(self, undisturbed: bw.Client) -> None:
        """Holds the session against the same steps on a server that is alone, which is sent parts by hand."""
        with undisturbed.create_session(network(), bw.Adam(0.001), seed=5) as alone:
            for number in range(self.done):
                examples = MANY if number in self._large else EXAMPLES
                for rows in np.array_split(np.arange(examples), PARTS):
                    part = {name: array[rows] for name, array in batch(number, examples).items()}
                    alone.forward(part).backward(weight=len(rows))
                alone.step(normalize="mean")
            assert self.session.digest() == alone.digest()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair")).serving() as made:
        yield made


@pytest.fixture
def pair(serving: Pair) -> Iterator[Pair]:
    with serving.trained():
        yield serving


def test_parts_that_another_replica_computes_give_the_same_bits(pair: Pair, undisturbed: bw.Client) -> None:
    helped, computed = figure(pair.b, "backwire_peer_parts_total"), figure(pair.a, "backwire_parts_total", by="session")
    pair.train_more_elsewhere(5)
    pair.check(undisturbed)
    assert figure(pair.b, "backwire_peer_parts_total") >= helped + 5
    assert figure(pair.a, "backwire_parts_total", by="session") >= computed + pair.done


def test_forward_and_backward_of_their_own_go_there_and_give_the_same_bits(pair: Pair, undisturbed: bw.Client) -> None:
    counts = list[float]()

    def count() -> None:
        counts.append(pair.sent())

    with undisturbed.create_session(network(), bw.Adam(0.001), seed=5, data_parallel=PARTS) as alone:
        pair.train_more_elsewhere(1)  # the helper there has started, and is fast from the first part on
        for done in range(pair.done):
            alone.train_step(batch(done))
        deadline, number, elsewhere = time.monotonic() + SECONDS, 0, np.zeros(2)
        while min(elsewhere) < 2:
            assert time.monotonic() < deadline
            counts.clear()
            count()
            found = in_calls(pair.session, number, count)
            count()
            expected = in_calls(alone, number)
            elsewhere, number = elsewhere + np.diff(counts), number + 1
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name], name)
        assert pair.session.digest() == alone.digest()


def test_a_replica_that_is_killed_between_forward_and_backward_leaves_no_trace(
    pair: Pair, undisturbed: bw.Client
) -> None:
    with undisturbed.create_session(network(), bw.Adam(0.001), seed=5, data_parallel=PARTS) as alone:
        deadline, number, enough = time.monotonic() + SECONDS, 0, pair.sent() + 3
        while pair.sent() < enough:
            assert time.monotonic() < deadline
            in_calls(pair.session, number)
            number += 1
        found = in_calls(pair.session, number, pair.b.kill)
        for each in range(number + 1):
            expected = in_calls(alone, each)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], name)
        assert pair.session.digest() == alone.digest()


def test_a_replica_that_is_killed_leaves_no_trace_and_is_used_again_when_it_is_back(
    pair: Pair, undisturbed: bw.Client
) -> None:
    pair.train_more_elsewhere()
    killer = threading.Timer(0.05, pair.b.kill)
    killer.start()
    pair.train_until(lambda: not killer.is_alive())
    pair.train(5)
    pair.b.start()
    pair.train_more_elsewhere()
    pair.check(undisturbed)


def test_a_replica_that_stands_still_is_not_waited_for_and_is_used_again_when_it_goes_on(
    pair: Pair, undisturbed: bw.Client
) -> None:
    pair.train_more_elsewhere()
    before = pair.sent()
    pair.b.pause()
    pair.train(4)
    assert pair.sent() <= before + 1, "what was on its way may have been done"
    pair.b.resume()
    pair.train_more_elsewhere()
    pair.check(undisturbed)


def test_a_replica_that_ends_in_good_order_leaves_no_trace(pair: Pair, undisturbed: bw.Client) -> None:
    pair.train_more_elsewhere()
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(pair.b.end_in_good_order)
        pair.train_until(ending.done)
        ending.result()
    pair.train(5)
    pair.check(undisturbed)


def test_a_call_that_its_client_gives_up_leaves_no_trace(pair: Pair, undisturbed: bw.Client) -> None:
    pair.train_more_elsewhere()
    for _ in range(5):
        pair.give_up()
    pair.train_more_elsewhere()
    pair.check(undisturbed)


def test_a_replica_that_computes_otherwise_is_not_used_and_that_is_said_once(
    tmp_path: Path, undisturbed: bw.Client
) -> None:
    pair = Pair(tmp_path, {"OPENBLAS_CORETYPE": "Prescott"})
    said = "computes no parts of batches, which is done here: the bits would not be the same: blas kernel was"
    with pair.serving(), pair.trained():
        pair.train_until(lambda: said in pair.a.log)
        pair.train(20)
        assert pair.sent() == 0
        assert pair.a.log.count(said) == 1
        pair.check(undisturbed)


def test_strangers_are_refused(pair: Pair) -> None:
    greeting = peer_pb2.ComputePartsRequest(greeting=peer_pb2.PeerGreeting())
    with grpc.insecure_channel(pair.b.address) as channel:
        stub = peer_pb2_grpc.PeerServiceStub(channel)
        for proof in ((), (("backwire-peer-nonce", "0" * 32),), (("authorization", "Bearer x"),)):
            with pytest.raises(grpc.RpcError, match="servers that share the data directory") as refused:
                list(stub.ComputeParts(iter([greeting]), metadata=proof, timeout=SECONDS))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
