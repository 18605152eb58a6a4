"""A server whose data directory hangs says so, so that calls are sent elsewhere, and takes it back."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.rpc.conftest import TIMEOUT, Api
from tests.waiting import until

from backwire_api.tensors import Bytes
from backwire_server.config_parts import Capacity, Keeping
from backwire_server.rpc import health
from backwire_server.rpc.health import Health
from backwire_server.rpc.server import Server
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import Limits
from backwire_server.storage import silence
from backwire_server.storage.journal.segment import Segment
from backwire_server.storage.sharing.heartbeat import Heartbeat

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def serve_from(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Starts servers on a data directory, and gives a client of each."""
    started: list[Api] = []

    def start(**keeping: Any) -> Api:
        home, kept = Home(replica="one"), Keeping(str(tmp_path), **keeping)
        started.append(Api(Server("127.0.0.1:0", Limits(), Capacity(), home, kept)))
        return started[-1]

    yield start
    for api in started:
        api.channel.close()
        api.server.stop(5.0)


def says(api: Api, status: int) -> bool:
    found = health_pb2_grpc.HealthStub(api.channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    return bool(found.status == status)


def silent_seconds(api: Api) -> float:
    lines = api.server.metrics.exposition().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("backwire_disk_silent_seconds ")))


class Hanging:
    """Holds what it is put in place of from the time when it is told to, until it goes on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()

    def wait(self) -> None:
        assert self.goes_on.wait(TIMEOUT)


def test_a_server_whose_journal_hangs_serves_again_once_it_was_written(
    serve_from: Callable[..., Api], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hanging, append = Hanging(), Segment.append

    def held(segment: Segment, record: Sequence[Bytes]) -> None:
        hanging.wait()
        append(segment, record)

    monkeypatch.setattr(Segment, "append", held)
    monkeypatch.setattr(silence, "LONG_SECONDS", 0.2)
    api = serve_from()
    session = api.create()
    api.train(session)
    until(lambda: says(api, SERVING))
    assert silent_seconds(api) == 0
    caplog.clear()  # a slow disk may have hung by itself
    hanging.goes_on.clear()
    late = threading.Thread(target=api.train, args=[session])
    late.start()
    until(lambda: says(api, NOT_SERVING))
    assert silent_seconds(api) > 0
    hanging.goes_on.set()
    late.join(TIMEOUT)
    until(lambda: says(api, SERVING))
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["health says NOT_SERVING" in each for each in told] == [True, False]
    assert told[1].endswith("can be written to again")


def test_a_directory_that_one_look_alone_finds_silent_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.001)
    told, hung = [6.0, 0.0, 6.0, 6.1, 6.2, 0.0, 6.0, 0.0], []
    rest = iter(told)

    def silence() -> float:
        hung.append(found.hangs)
        if (silent := next(rest, None)) is None:
            found.end()
        return silent or 0.0

    found = Health("service", silence, "directory")
    found._look(silence)
    assert hung[1:] == [False, False, False, True, True, False, False, False]


def test_a_replica_that_can_give_no_sign_of_life_for_its_lease_serves_again_once_it_can(
    serve_from: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, beat = Hanging(), Heartbeat._beat_somehow

    def held(heartbeat: Heartbeat) -> None:
        hanging.wait()
        beat(heartbeat)

    monkeypatch.setattr(Heartbeat, "_beat_somehow", held)
    api = serve_from(shared=True, lease=0.5)
    until(lambda: says(api, SERVING))
    hanging.goes_on.clear()
    until(lambda: says(api, NOT_SERVING))
    assert silent_seconds(api) >= 0.5
    hanging.goes_on.set()
    until(lambda: says(api, SERVING))
