"""Whoever passes no Value where one is needed, such as all the outputs of a node, is told what to do."""

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import backwire as bw

X = bw.input("x", ("n", 4))
ALL = bw.op("Split", X, attributes={"axis": 1}, outputs=2)
OTHERS: dict[str, Any] = {
    "name": "layer",
    "shape": (2, 2),
    "widths": [(0, 0), (0, 1)],
    "value": X,
    "dtype": "float32",
    "rate": 0.5,
    "low": 0,
    "xs": [X],
    "body": bw.relu,
}
TAKES_SEVERAL = {"concat", "stack", "l1_penalty", "l2_penalty"}  # and those whose first parameter is no Value


def takers() -> Iterator[str]:
    """Every public function whose first parameter is one Value."""
    for name in bw.__all__:
        if inspect.isfunction(getattr(bw, name)) and name not in TAKES_SEVERAL:
            first = next(iter(inspect.signature(getattr(bw, name)).parameters.values()), None)
            if first is not None and first.annotation in (bw.Value, "Value"):
                yield name


@pytest.mark.parametrize("name", list(takers()))
@pytest.mark.parametrize(("passed", "told"), [(ALL, r"a tuple of 2; take one by its place"), ([X, X], "a list of 2")])
def test_every_function_of_one_value_says_what_to_do_with_several(name: str, passed: Any, told: str) -> None:
    function = getattr(bw, name)
    _, *others = inspect.signature(function).parameters.values()
    given = {
        each.name: OTHERS.get(each.name, X if "Value" in str(each.annotation) else 1) for each in others if needed(each)
    }
    with pytest.raises(bw.GraphError, match=told):
        function(passed, **given)


def needed(parameter: inspect.Parameter) -> bool:
    return parameter.name == "low" or (
        parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
    )


def test_arrays_and_outputs_without_names_are_refused_by_name() -> None:
    with pytest.raises(bw.GraphError, match=r"ReduceMean: an array of shape \[3, 4\] is no Value; make one with"):
        bw.mean(np.ones((3, 4), np.float32))  # type: ignore[arg-type]
    with pytest.raises(bw.GraphError, match=r"Add: one Value is needed here, not a tuple of 2"):
        X + ALL  # type: ignore[operator]
    with pytest.raises(bw.GraphError, match=r"gradient: xs is .* alone; put it into a list"):
        bw.gradient(bw.sum(X), X)  # type: ignore[arg-type]
    with pytest.raises(bw.GraphError, match="name them by a dictionary"):
        bw.graph(outputs=ALL)  # type: ignore[arg-type]
