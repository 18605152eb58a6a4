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
