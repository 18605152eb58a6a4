"""A worker of a cluster whose data directory hangs is given nothing new while another is well, and is left as it is."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import Api
from tests.waiting import until

pytest.importorskip("ray")

import ray.util

from backwire_api.tensors import Bytes
from backwire_server import machine
from backwire_server.cluster import actors, controller
from backwire_server.cluster.controller import Controller
from backwire_server.cluster.gateway import Gateway
from backwire_server.cluster.load import Load
from backwire_server.cluster.placing import Policy, for_new
from backwire_server.cluster.routes import Routes
from backwire_server.cluster.worker import Worker
from backwire_server.config import Config
from backwire_server.config_parts import Access, Cluster, Keeping
from backwire_server.rpc import logs
from backwire_server.storage import silence
from backwire_server.storage.journal.segment import Segment

WELL = Load("a", "127.0.0.1:1", awake=9)
HANGS = Load("b", "127.0.0.1:2", hangs=True)


def test_calls_and_new_sessions_go_to_workers_that_do_not_hang_as_long_as_there_is_one() -> None:
    async def see() -> None:
        routes = Routes(Access())
        routes.update([WELL, HANGS])
        assert {routes.next().load.worker for _ in range(3)} == {"a"}
        assert for_new([WELL, HANGS], {}) == "a"
        assert {route.load.worker for route in routes.all} == {"a", "b"}, "both tell of their sessions"
        routes.update([replace(WELL, takes_calls=False), HANGS])
        assert routes.next().load.worker == routes.for_new().load.worker == "b"
        await routes.close()

    asyncio.run(see())


def test_a_gateway_serves_as_long_as_a_worker_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr(Gateway, "tell_health", lambda _, *, serving: told.append(serving))

    async def see() -> None:
        gateway = Gateway(Config(listen="127.0.0.1:0"))
        for loads in ([WELL, HANGS], [HANGS], [replace(HANGS, hangs=False)], []):
            gateway.update(loads)
        await gateway.stop(0.0)

    asyncio.run(see())
    assert told == [True, False, True, False]


def test_a_worker_tells_its_load_while_its_directory_hangs_and_is_well_once_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, append = threading.Event(), Segment.append

    def held(segment: Segment, record: Sequence[Bytes]) -> None:
        assert goes_on.wait(60)
        append(segment, record)

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(machine, "prepare", lambda *_: None)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    monkeypatch.setattr(silence, "LONG_SECONDS", 0.1)
    monkeypatch.setattr(Segment, "append", held)
    made = Worker(Config(keeping=Keeping(data_dir=str(tmp_path))), "w")
    with ExitStack() as stack:
        stack.callback(made.drain)
        stack.callback(goes_on.set)
        api = Api(made._server, grpc.insecure_channel(made._server.address))
        stack.callback(api.channel.close)
        session = api.create()
        until(lambda: not made.load().hangs)  # which a slow disk does at first
        late = threading.Thread(target=api.train, args=[session])
        late.start()
        until(lambda: made.load().hangs)
        assert made.load().takes_calls
        assert "backwire_disk_silent_seconds" in made.metrics()
        goes_on.set()
        late.join()
        until(lambda: not made.load().hangs)


class Workers:
    """Two workers, and those that are started besides, which tell what a test has them tell."""

    def __init__(self) -> None:
        self.loads = {name: Load(name, f"{name}:1") for name in "ab"}
        self.started: list[str] = []
        self.killed: list[Any] = []
        self.looks = 0

    def actor(self, name: str) -> Any:
        return type("Actor", (), {"load": Asked(name), "drain": Asked(name), "metrics": Asked(name)})

    def start_worker(self, _: Config, name: str) -> Any:
        self.started.append(name)
        self.loads[name] = Load(name, f"{name}:1")
        return self.actor(name)

    def answers(self, asked: list[str]) -> dict[str, Any]:
        self.looks += 1
        return {name: self.loads[name] for name in asked}

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)

    def get(self, *_: Any, **__: Any) -> bool:
        return True

    def look(self) -> None:
        """Waits until the controller has looked at the workers, and done what follows."""
        before = self.looks
        until(lambda: self.looks >= before + 3)


class Asked:
    def __init__(self, name: str) -> None:
        self.name = name

    def remote(self) -> str:
        return self.name


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    monkeypatch.setattr(actors, "workers", lambda: {name: made.actor(name) for name in made.loads})
    monkeypatch.setattr(actors, "start_worker", made.start_worker)
    monkeypatch.setattr(controller, "_answers", made.answers)
    monkeypatch.setattr(controller, "ray", made)
    return made


@pytest.fixture
def watch(cluster: Workers) -> Iterator[Callable[..., Controller]]:
    """Starts a controller that has other numbers of workers as soon as it looks."""
    started: list[Controller] = []

    def start(**sizes: int) -> Controller:
        settings = Config(keeping=Keeping(data_dir="/data"), cluster=Cluster(ray="auto", **sizes))
        cluster.looks = 0
        started.append(Controller(settings, Policy(tick=0.01, up_seconds=0.0, down_seconds=0.0)))
        return started[-1]

    yield start
    for each in started:
        each.end()


def test_a_worker_that_hangs_is_told_of_keeps_its_calls_and_is_not_started_anew(
    cluster: Workers, watch: Callable[..., Controller], caplog: pytest.LogCaptureFixture
) -> None:
    cluster.loads["b"] = replace(cluster.loads["b"], hangs=True)
    watching = watch(min_workers=2, max_workers=2)
    cluster.look()
    view = watching.view("a gateway")
    assert {load.worker: (load.takes_calls, load.hangs) for load in view.loads} == {
        "a": (True, False),
        "b": (True, True),
    }
    assert view.waiting == "the data directory of b hangs"
    cluster.loads["b"] = replace(cluster.loads["b"], hangs=False)
    cluster.look()
    assert watching.view("a gateway").waiting == ""
    assert cluster.started == cluster.killed == []
    told = [record.getMessage().partition(": ")[2] for record in caplog.records if "hang" in record.getMessage()]
    assert told == ["b", "no worker any more"]
    watching.leave("a gateway")


@pytest.mark.parametrize(("busy", "started"), [(1.0, ["backwire-worker-0"]), (0.0, [])])
def test_workers_are_as_many_as_those_that_do_not_hang_need(
    cluster: Workers, watch: Callable[..., Controller], busy: float, started: list[str]
) -> None:
    cluster.loads = {"a": replace(cluster.loads["a"], busy=busy), "b": replace(cluster.loads["b"], hangs=True)}
    watch(min_workers=1, max_workers=3)
    cluster.look()
    assert cluster.started == started
    assert cluster.killed == []


def test_where_all_hang_no_worker_comes_or_goes(cluster: Workers, watch: Callable[..., Controller]) -> None:
    cluster.loads = {name: replace(load, hangs=True) for name, load in cluster.loads.items()}
    watch(min_workers=3, max_workers=4)
    cluster.look()
    assert cluster.started == cluster.killed == []
