"""Both clients have the same methods, with the same arguments."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import backwire as bw

TWINS = ["Client", "Session", "Forward", "Pipeline", "PipelineFuture", "ForwardFuture", "Lease"]
OF_THE_STANDARD_LIBRARY = {"cancel", "cancelled", "running", "set_result", "set_exception"}
OF_ITS_OWN = {"resolve", "set_running_or_notify_cancel"}
NOT_AWAITED = {
    *("Client.sessions", "Session.train_steps", "Session.pipeline"),
    *("PipelineFuture.done", "PipelineFuture.add_done_callback", "ForwardFuture.done"),
    "ForwardFuture.add_done_callback",
}


def methods(kind: type) -> dict[str, Callable[..., Any]]:
    ignored = OF_THE_STANDARD_LIBRARY | OF_ITS_OWN
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: value for name, value in found if not name.startswith("_") and name not in ignored}


@pytest.mark.parametrize("name", TWINS)
def test_both_clients_have_the_same_methods_with_the_same_arguments(name: str) -> None:
    one, other = methods(getattr(bw, name)), methods(getattr(bw.aio, name))
    assert one.keys() == other.keys()
    for method, waiting in one.items():
        if method != "add_done_callback":
            expected, found = (list(inspect.signature(each).parameters.values()) for each in (waiting, other[method]))
            assert [(each.name, each.kind, each.default) for each in found] == [
                (each.name, each.kind, each.default) for each in expected
            ], method
        awaited = inspect.iscoroutinefunction(other[method])
        assert awaited != (f"{name}.{method}" in NOT_AWAITED), method


def test_everything_public_is_documented() -> None:
    for name in bw.aio.__all__:
        kind = getattr(bw.aio, name)
        assert inspect.getdoc(kind), name
        for method, value in methods(kind).items() if inspect.isclass(kind) else ():
            assert inspect.getdoc(value), f"{name}.{method}"


def test_connecting_takes_the_same_arguments() -> None:
    one, other = (inspect.signature(each).parameters for each in (bw.connect, bw.aio.connect))
    assert list(one) == list(other)
