"""Graphs of a few nodes whose dimensions would be endless: they are unknown until sizes are, and others are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backwire_server.engine.dims import MOST_FACTORS, MOST_TERMS, Symbolic, UnknownDimension, broadcast, product
from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.plan_cache import PlanCache

RANK = 32
N = Symbolic.of("n")


def graph_of(x: Input, *nodes: Node, **constants: np.ndarray[Any, Any]) -> Graph:
    return Graph((x,), constants=constants, nodes=nodes, outputs={nodes[-1].outputs[0]: nodes[-1].outputs[0]})


def padded() -> Graph:
    """The product of (a0 + 1) to (a31 + 1): a polynomial of 2**32 terms."""
    x = Input("x", TensorType.of(np.float32, [f"a{axis}" for axis in range(RANK)]))
    pad, flatten = Node("Pad", ("x", "pads"), ("p",)), Node("Flatten", ("p",), ("f",), {"axis": RANK})
    return graph_of(x, pad, flatten, pads=np.array([0] * RANK + [1] * RANK))


def squared(count: int, size: int | str = "n") -> Graph:
    """A size that is squared again and again, so that its power, or its digits, double with each step."""
    nodes: list[Node] = []
    for step in range(count):
        nodes += [
            Node("Transpose", (f"v{step}",), (f"t{step}",)),
            Node("MatMul", (f"v{step}", f"t{step}"), (f"m{step}",)),
            Node("Flatten", (f"m{step}",), (f"v{step + 1}",), {"axis": 2}),
        ]
    return graph_of(Input("v0", TensorType.of(np.float32, [size, 1])), *nodes)


def halved(count: int = 2_000) -> Graph:
    """A size that is halved, of which each half has a longer name."""
    windows = {"kernel_shape": (2,), "strides": (2,)}
    nodes = [Node("MaxPool", (f"v{step}",), (f"v{step + 1}",), windows) for step in range(count)]
    return graph_of(Input("v0", TensorType.of(np.float32, [1, 1, "n"])), *nodes)


@pytest.mark.parametrize("graph", [padded, lambda: squared(200), halved], ids=["padded", "squared", "halved"])
def test_a_graph_of_endless_dimensions_is_accepted_without_telling_them(graph: Callable[[], Graph]) -> None:
    PlanCache(graph())


def test_what_is_unknown_in_the_check_is_computed_once_sizes_are_given() -> None:
    x = np.zeros((0,) * (RANK - 1) + (3,), np.float32)
    found = Model(padded()).forward({"x": x}, {}, training=False)
    np.testing.assert_array_equal(found.outputs["f"], np.zeros((4, 1)))


@pytest.mark.parametrize("size", [2**40, 2**31])
def test_a_result_larger_than_any_array_is_refused_before_its_digits_fill_memory(size: int) -> None:
    with pytest.raises(ShapeMismatch, match=r"Flatten.*an axis of more than .* elements; make the inputs smaller"):
        PlanCache(squared(60, size))


def test_dimensions_beyond_the_bounds_are_unknown() -> None:
    names = [Symbolic.of(f"a{index}") for index in range(MOST_TERMS + 1)]
    assert str(product([N] * MOST_FACTORS)) == "*".join(["n"] * MOST_FACTORS)
    with pytest.raises(UnknownDimension, match="a product of more than"):
        product([N] * (MOST_FACTORS + 1))
    with pytest.raises(UnknownDimension, match="a factor above"):
        product([N, 2**62, 2])
    with pytest.raises(UnknownDimension, match="a sum of more than"):
        sum(names, start=N)
    with pytest.raises(UnknownDimension, match="a term of more than"):
        product([Symbolic.of("n" * 1_000) // 2])
    with pytest.raises(UnknownDimension, match="a term of more than"):
        broadcast([N], [Symbolic.of("m" * 1_000)])
