"""What a controller tells gateways that come and go, with a worker that a test makes up."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("ray")

from backwire_server.cluster import actors, controller
from backwire_server.cluster.controller import Controller
from backwire_server.cluster.load import Load
from backwire_server.cluster.placing import Policy
from backwire_server.config import Config
from backwire_server.config_parts import Cluster, Keeping
from backwire_server.rpc import logs

SETTINGS = Config(keeping=Keeping(data_dir="/data"), cluster=Cluster(ray="auto", max_workers=1))
OTHERS = Config(keeping=Keeping(data_dir="/data"), cluster=Cluster(ray="auto", max_workers=2))
POLICY = Policy(tick=0.01)
WAIT = 20.0


class Asked:
    """A method of an actor; what Ray would have of a call of it is its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def remote(self) -> str:
        return self._name


class Actor:
    """A worker that Ray runs."""

    load, drain = Asked("load"), Asked("drain")


class Ray:
    """Answers for the worker, once it is let."""

    def __init__(self) -> None:
        self.load = Load("w", "w:1")
        self.may_tell, self.may_end, self.ends = threading.Event(), threading.Event(), threading.Event()
        self.killed: list[Any] = []

    def answers(self, asked: list[str]) -> dict[str, Any]:
        assert self.may_tell.wait(WAIT)
        return dict.fromkeys(asked, self.load)

    def get(self, asked: str, timeout: float) -> bool:
        assert (asked, timeout > SETTINGS.grace) == ("drain", True)
        self.ends.set()
        return self.may_end.wait(WAIT)

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    monkeypatch.setattr(actors, "workers", lambda: {"w": Actor})
    monkeypatch.setattr(actors, "start_worker", lambda *_: Actor)
    monkeypatch.setattr(controller, "_answers", made.answers)
    monkeypatch.setattr(controller, "ray", made)
    return made


@pytest.fixture
def watching(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    made = Controller(SETTINGS, POLICY)
    yield made
    monkeypatch.setattr(controller, "GATEWAY_SECONDS", 0.0)
    ray.may_tell.set()
    ray.may_end.set()
    made.leave("a")
    made.end()


def test_a_gateway_that_is_refused_does_not_keep_the_workers(watching: Controller, ray: Ray) -> None:
    ray.may_tell.set()
    assert "other settings" in watching.join("b", OTHERS)
    assert watching.join("a", SETTINGS) == ""
    assert watching.leave("a"), "it is the last"


def test_workers_stay_for_a_gateway_that_comes_when_the_last_has_left(watching: Controller, ray: Ray) -> None:
    ray.may_tell.set()
    watching.join("b", SETTINGS)
    assert watching.leave("b")
    watching.join("a", SETTINGS)
    assert not watching.end()
    assert ray.killed == []


def test_workers_end_with_the_last_gateway_though_another_has_ended_by_itself_just_before(
    watching: Controller, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "GATEWAY_SECONDS", 0.2)
    ray.may_tell.set()
    ray.may_end.set()
    watching.join("killed", SETTINGS)
    watching.join("a", SETTINGS)
    assert watching.leave("a")
    assert watching.end()
    assert ray.killed == [Actor]


def test_a_gateway_that_leaves_another_behind_is_told_so_as_soon_as_that_one_asks(watching: Controller) -> None:
    watching.join("a", SETTINGS)
    watching.join("b", SETTINGS)
    asking = threading.Timer(0.1, watching.join, ("b", SETTINGS))
    asking.start()
    assert not watching.leave("a")
    asking.join()
    assert watching.leave("b")


def test_a_controller_that_was_started_anew_waits_for_gateways_that_it_has_not_heard_of_yet(
    watching: Controller, ray: Ray
) -> None:
    with ThreadPoolExecutor(2) as pool:
        leaving = pool.submit(watching.leave, "gone")
        seen = pool.submit(watching.view, "a")
        assert not leaving.result(WAIT), "the other asks, though the workers have not been asked yet"
        ray.may_tell.set()
        seen.result(WAIT)
    assert watching.leave("a")


def test_of_gateways_that_leave_at_once_one_is_the_last(watching: Controller) -> None:
    names = "abcd"
    for name in names:
        watching.join(name, SETTINGS)
    with ThreadPoolExecutor(len(names)) as pool:
        assert sorted(pool.map(watching.leave, names)) == [False, False, False, True]


def test_a_gateway_that_comes_while_the_workers_end_is_told_to_come_again(watching: Controller, ray: Ray) -> None:
    ray.may_tell.set()
    ending = threading.Thread(target=watching.end)
    ending.start()
    assert ray.ends.wait(WAIT)
    assert "start this one again" in watching.join("a", SETTINGS)
    ray.may_end.set()
    ending.join(WAIT)
    assert ray.killed == [Actor]


def test_a_controller_that_is_started_anew_tells_of_workers_once_it_has_asked_them(
    watching: Controller, ray: Ray
) -> None:
    threading.Timer(0.2, ray.may_tell.set).start()
    assert watching.view("a").loads == (ray.load,)


def test_a_worker_that_was_about_to_end_is_ended_by_the_next_controller(watching: Controller, ray: Ray) -> None:
    ray.load = Load("w", "w:1", takes_calls=False)
    ray.may_tell.set()
    assert ray.ends.wait(WAIT)
    assert ray.load in watching.view("a").loads, "beside the one that is started in its place"
    ray.may_end.set()
    watching.leave("a")
    assert watching.end()
    assert ray.killed[0] is Actor
