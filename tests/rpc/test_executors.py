"""Which executor a session gets, and what a server tells that lacks it."""

from collections.abc import Callable
from typing import Any

import pytest

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server import config, config_reading
from backwire_server.messages.executors import executor_of, executor_to_proto
from backwire_server.messages.session import session_spec
from backwire_server.sessions import executors
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.limits import Limits

Refused = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda _: None)
    monkeypatch.setattr(config, "find_spec", lambda _: None)


def test_sessions_compute_by_numpy_unless_they_are_told_otherwise(api: Any) -> None:
    assert api.info(api.create()).executor == pb.EXECUTOR_NUMPY


@pytest.mark.usefixtures("without_jax")
def test_a_server_without_jax_says_what_to_install(api: Any, refused: Refused) -> None:
    told = refused(lambda: api.create(executor=pb.EXECUTOR_JAX))
    assert (told.code.name, told.reason, told.field) == ("FAILED_PRECONDITION", "EXECUTOR_UNAVAILABLE", "executor")
    assert "pip install 'backwire[jax]'" in told.message


def test_an_executor_that_does_not_exist_is_refused(api: Any, refused: Refused) -> None:
    told = refused(lambda: api.create(executor=9))
    assert (told.code.name, told.field) == ("INVALID_ARGUMENT", "executor")


@pytest.mark.usefixtures("without_jax")
def test_a_server_does_not_start_with_an_executor_that_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        config_reading.parse(["--executor", "jax"], {})
    assert "run `pip install 'backwire[jax]'`, or leave --executor out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        config_reading.parse(["--executor", "gpu"], {})
    assert "use one of numpy, jax" in capsys.readouterr().err


def test_the_definition_of_a_session_has_its_executor(graph: Any) -> None:
    request = pb.CreateSessionRequest(graph=graph(), executor=pb.EXECUTOR_JAX)
    spec = session_spec(request, Limits())
    again = session_spec(pb.CreateSessionRequest.FromString(spec.definition), Limits())
    assert (spec.executor, again.executor) == (Executor.JAX, Executor.JAX)


@pytest.mark.parametrize("executor", Executor)
def test_every_executor_has_a_number(executor: Executor) -> None:
    assert executor_of(executor_to_proto(executor)) is executor
    assert executor_of(pb.EXECUTOR_UNSPECIFIED) is Executor.NUMPY
