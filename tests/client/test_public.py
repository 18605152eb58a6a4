"""The public face of the package."""

import inspect
import types
from collections.abc import Callable
from typing import Any

import backwire as bw


def test_all_lists_exactly_what_is_public_in_order() -> None:
    public = {name for name, value in vars(bw).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert set(bw.__all__) == public | {"__version__"}
    assert len(bw.__all__) == len(set(bw.__all__))


def test_everything_public_is_documented() -> None:
    for name in bw.__all__:
        value = getattr(bw, name)
        if inspect.isclass(value) or isinstance(value, types.FunctionType):
            assert inspect.getdoc(value), name


RETURNED = {
    *("CheckpointInfo", "InputInfo", "LeaseInfo", "ParameterInfo", "SessionInfo", "SessionLimits", "StepResult"),
    *(
        "TrainStepResult",
        "GradientCheck",
        "GraphDescription",
        "NodeCost",
        "SessionDescription",
        "OpAttribute",
        "OpInfo",
        "OpInput",
        "ParameterCheck",
    ),
    *("ValueInfo", "WireBytes", "ServerLoad", "ServerStatus", "SessionHistory", "SessionStatus", "StepRecord", "Usage"),
    *("Lease", "Forward", "ForwardFuture", "PipelineFuture", "Epoch", "Training", "Reason", "Optimizer", "Schedule"),
}
"""What calls return, and what others are made from; the examples of those calls and classes show it."""


def test_everything_that_users_call_has_an_example() -> None:
    for name in set(bw.__all__) - RETURNED:
        value = getattr(bw, name)
        if inspect.isclass(value) and not issubclass(value, BaseException):
            documented = [value, *(each for key, each in vars(value).items() if not key.startswith("_"))]
            assert any(">>>" in (each.__doc__ or "") for each in documented), name
        elif inspect.isfunction(value):
            assert ">>>" in (value.__doc__ or ""), name


def test_configuration_is_keyword_only() -> None:
    builders: list[tuple[Callable[..., Any], int]] = [
        (bw.connect, 1),
        (bw.dense, 2),
        (bw.conv2d, 3),
        (bw.parameter, 2),
        (bw.graph, 0),
    ]
    for function, positional in builders:
        kinds = [each.kind for each in inspect.signature(function).parameters.values()]
        assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) == positional
