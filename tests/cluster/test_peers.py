"""Parts of batches that another replica computes: the bits are those of one server alone, whatever happens to it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.cluster.pair import PARTS, SECONDS, Pair, batch, figure, in_calls, network

import backwire as bw
from backwire_api.v1 import peer_pb2, peer_pb2_grpc


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
