"""Operators that make numbers of their own before anything is computed make no more than fit into memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from backwire_server.engine.builder import MOST_MADE, Builder
from backwire_server.engine.errors import EngineError, ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.plan_cache import PlanCache

HUGE = 10**12
FEW = TensorType.of(np.float32, [3])


def graph(node: Node, shapes: Mapping[str, TensorType], **constants: Any) -> Graph:
    inputs = tuple(Input(name, type_) for name, type_ in shapes.items())
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return Graph(inputs, constants=arrays, nodes=(node,), outputs={"y": "y"})


def of(op: str, *names: str, **attributes: Any) -> Node:
    return Node(op, names, ("y",), attributes)


def typed(*sizes: int, dtype: Any = np.float32) -> TensorType:
    return TensorType.of(dtype, sizes)


GREEDY = {
    "Range": graph(of("Range", "a", "b", "c"), {}, a=0, b=HUGE, c=1),
    "HannWindow": graph(of("HannWindow", "n"), {}, n=HUGE),
    "OneHot": graph(of("OneHot", "x", "n", "v"), {"x": typed(3, dtype=np.int64)}, n=HUGE, v=[0.0, 1.0]),
    "EyeLike": graph(of("EyeLike", "x"), {"x": typed(1_000_000, 1_000_000)}),
    "Trilu": graph(of("Trilu", "x"), {"x": typed(1_000_000, 1_000_000)}),
    "Hardmax": graph(of("Hardmax", "x"), {"x": typed(HUGE)}),
    "Resize": graph(of("Resize", "x", "", "", "n", mode="linear"), {"x": FEW}, n=[HUGE]),
    "Resize by little": graph(of("Resize", "x", "", "s", mode="linear", antialias=1), {"x": FEW}, s=[1e-12]),
    "Pad": graph(of("Pad", "x", "p", mode="edge"), {"x": FEW}, p=[HUGE, 0]),
    "AffineGrid": graph(of("AffineGrid", "x", "n"), {"x": typed(1, 2, 3)}, n=[1, 1, 10**6, 10**6]),
    "ReverseSequence": graph(of("ReverseSequence", "x", "n"), {"x": typed(HUGE, 1), "n": typed(1, dtype=np.int64)}),
}


@pytest.mark.parametrize("name", GREEDY)
def test_too_many_are_refused_before_they_are_made(name: str) -> None:
    with pytest.raises(ShapeMismatch, match=r"would be made before anything is computed.*make the shapes smaller"):
        PlanCache(GREEDY[name])


def test_those_of_a_graph_are_counted_together() -> None:
    builder = Builder(training=False)
    assert builder.make(MOST_MADE // 2) == MOST_MADE // 2
    assert builder.fork().make(MOST_MADE // 2)
    builder.make(MOST_MADE // 2)
    with pytest.raises(ShapeMismatch, match=f"may have {MOST_MADE:,} such"):
        builder.fork().make(1)


def test_max_unpool_fills_its_zeros_when_it_runs() -> None:
    types = {"x": typed(1, 1, 2), "i": typed(1, 1, 2, dtype=np.int64)}
    PlanCache(graph(of("MaxUnpool", "x", "i", kernel_shape=(2,), strides=(HUGE,)), types))


def test_an_axis_that_is_no_integer_is_refused() -> None:
    with pytest.raises(EngineError, match=r"CumSum.*float64 is not accepted here, only integer"):
        PlanCache(graph(of("CumSum", "x", "a"), {"x": FEW}, a=0.0))


def test_no_elements_in_a_large_shape_are_no_list_of_sizes() -> None:
    shape, x = np.zeros((10_000_000, 0), np.int64), Input("x", FEW)
    wrong = Graph((x,), constants={"s": shape}, nodes=(of("Reshape", "x", "s"),), outputs={"y": "y"})
    with pytest.raises(EngineError, match=r"shape \[10000000, 0\] has no elements; give some"):
        PlanCache(wrong)
