"""A call that was passed on by gRPC ends when the server lives no more to which it went, though no connection broke."""

import threading
from functools import partial
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import Held, Until, X

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.replicas import watching
from backwire_server.rpc.replicas.watching import Watch
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.training import trainer


@pytest.mark.parametrize("way", ["call", "stream"])
def test_what_waits_for_a_server_ends_when_that_lives_no_more_as_a_reason_to_call_again(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch, until: Until, way: str, refused: Any
) -> None:
    held = Held(until)
    monkeypatch.setitem(trainer._COMPUTING, TrainCall, held.train)
    owner, other = replicas
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    if way == "call":
        waits = other.stub.TrainStep.future(request, timeout=TIMEOUT).result
    else:
        stream = other.stub.Pipeline(iter([pb.PipelineRequest(id=1, train_step=request)]), timeout=TIMEOUT)
        waits = partial(next, stream)
    assert held.begun.wait(TIMEOUT)
    assert other.server._neighbours.forwarder is not None
    monkeypatch.setattr(
        other.server._neighbours.forwarder._watch, "_lives", lambda address: address != owner.server.address
    )
    told = refused(waits)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert held.stopped.wait(TIMEOUT), "the owner notices that nobody waits"


def test_a_call_is_cancelled_only_while_it_lasts_and_its_server_is_known_to_be_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    cancelled, looked = list[str](), threading.Semaphore(0)
    ended = threading.Event()

    def lives(address: str) -> bool:
        looked.release()
        if address == "unknown":
            raise OSError
        return address == "there"

    def cancel(name: str) -> None:
        cancelled.append(name)
        ended.set()

    watch = Watch(lives)
    with watch.over("gone", lambda: cancel("over")):
        pass
    with watch.over("there", lambda: cancel("there")), watch.over("unknown", lambda: cancel("unknown")):
        for _ in range(4):
            assert looked.acquire(timeout=TIMEOUT)
        with watch.over("gone", lambda: cancel("gone")):
            assert ended.wait(TIMEOUT)
    watch.close()
    assert set(cancelled) == {"gone"}
