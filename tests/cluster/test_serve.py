"""A gateway that waits for its workers, with a controller that a test makes up."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.exceptions import ActorDiedError, GetTimeoutError

from backwire_server.cluster import actors, serve
from backwire_server.cluster.load import Load, View
from backwire_server.config import Config
from backwire_server.config_parts import Cluster, Keeping

SETTINGS = Config(listen="127.0.0.1:0", keeping=Keeping(data_dir="/data"), cluster=Cluster(ray="auto"))


class Controller:
    """An actor that answers what the test says, each time with what is next, and at last again and again."""

    def __init__(self, **answers: list[Any]) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, list[Any]] = {"join": [""], "leave": [False], **answers}

    def __getattr__(self, method: str) -> Any:
        def answer() -> Any:
            self.asked.append(method)
            answers = self._answers[method]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(found, Exception):
                raise found
            return found

        return type("Method", (), {"remote": staticmethod(lambda *_: answer)})


class Ray:
    """Has the answers given."""

    def __init__(self) -> None:
        self.connected = True

    def get(self, answer: Callable[[], Any], timeout: float) -> Any:
        assert timeout > 0
        return answer()

    def shutdown(self) -> None:
        self.connected = False


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[Controller], list[str]]:
    """Serves with a controller until a worker serves, and returns the addresses that were announced."""

    def until_a_worker_serves(controller: Controller) -> list[str]:
        ray, stop, announced = Ray(), threading.Event(), list[str]()

        def announce(address: str) -> None:
            announced.append(address)
            stop.set()

        monkeypatch.setattr(actors, "connect", lambda _: None)
        monkeypatch.setattr(actors, "hosts", list)
        monkeypatch.setattr(actors, "controller", lambda *_: controller)
        monkeypatch.setattr(serve, "ray", ray)
        try:
            serve.serve(SETTINGS, stop, announce)
        finally:
            assert not ray.connected
        return announced

    return until_a_worker_serves


def test_a_gateway_whose_controller_is_lost_before_a_worker_serves_says_what_to_do_and_leaves(
    served: Callable[[Controller], list[str]],
) -> None:
    controller = Controller(view=[View(), ActorDiedError()])
    with pytest.raises(OSError, match=r"lost the controller.*start this gateway again"):
        served(controller)
    assert controller.asked == ["join", "view", "view", "leave"]


def test_a_gateway_asks_again_when_its_controller_does_not_answer_in_time(
    served: Callable[[Controller], list[str]],
) -> None:
    controller = Controller(view=[GetTimeoutError(), View((Load("w", "127.0.0.1:1"),))])
    (address,) = served(controller)
    assert address.startswith("127.0.0.1:")


def test_a_gateway_that_finds_a_controller_which_was_just_ended_says_what_to_do(
    served: Callable[[Controller], list[str]],
) -> None:
    with pytest.raises(OSError, match="start this gateway again"):
        served(Controller(join=[ActorDiedError()]))
