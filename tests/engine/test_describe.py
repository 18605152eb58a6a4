"""Descriptions say what passes turn out to hold and to compute, from shapes alone."""

from typing import Any

import numpy as np
import pytest

from backwire_server.engine.describe import Description, describe, input_types
from backwire_server.engine.errors import DtypeMismatch, EngineError, MissingInput, ShapeMismatch, UnknownInput
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model

X = Input("x", TensorType.of("float32", ("batch", 4)))
T = Input("t", TensorType.of("float32", ("batch", 2)))
NETWORK = Graph(
    inputs=(X, T),
    parameters=(
        Parameter("w1", TensorType.of("float32", (4, 5))),
        Parameter("w2", TensorType.of("float32", (5, 2))),
    ),
    nodes=(
        Node("MatMul", ("x", "w1"), ("z",)),
        Node("Tanh", ("z",), ("h",)),
        Node("MatMul", ("h", "w2"), ("y",)),
        Node("Sub", ("y", "t"), ("d",)),
        Node("Mul", ("d", "d"), ("s",)),
        Node("ReduceSum", ("s",), ("l",), {"keepdims": 0}),
    ),
    outputs={"y": "y"},
    loss="l",
)


def described(graph: Graph, known: dict[str, Any] | None = None, **shapes: tuple[int, ...]) -> Description:
    return describe(graph, Model(graph).trainable, input_types(graph, shapes), known or {})


def test_types_are_those_of_the_computed_values() -> None:
    found = described(NETWORK, x=(7, 4))
    assert {name: type_.shape for name, type_ in found.values.items()} == {
        "x": (7, 4),
        "t": (7, 2),
        "w1": (4, 5),
        "w2": (5, 2),
        "z": (7, 5),
        "h": (7, 5),
        "y": (7, 2),
        "d": (7, 2),
        "s": (7, 2),
        "l": (),
    }
    assert found.outputs == {"y": TensorType.of("float32", (7, 2))}


def test_pass_bytes_are_what_a_pass_holds() -> None:
    draw = np.random.default_rng(0)
    inputs = {"x": draw.normal(size=(7, 4)).astype("f4"), "t": draw.normal(size=(7, 2)).astype("f4")}
    values = {"w1": draw.normal(size=(4, 5)).astype("f4"), "w2": draw.normal(size=(5, 2)).astype("f4")}
    held = Model(NETWORK).forward(inputs, values, training=True).nbytes
    assert described(NETWORK, x=(7, 4)).pass_bytes == held
    assert described(NETWORK, x=(7, 4)).peak_bytes >= held


def test_matrix_products_count_two_operations_for_each_multiplication() -> None:
    found = described(NETWORK, x=(7, 4))
    products = 2 * 7 * 4 * 5 + 2 * 7 * 5 * 2
    assert found.forward_flops == products + 7 * 5 + 2 * 7 * 2 + 1
    assert found.backward_flops > products - 2 * 7 * 4 * 5 + 2 * 7 * 5 * 2, "w1, w2 and h have a product each"


def test_work_grows_with_the_batch() -> None:
    small, large = described(NETWORK, x=(100, 4)), described(NETWORK, x=(10_000, 4))
    assert large.forward_flops == 100 * (small.forward_flops - 1) + 1
    assert large.peak_bytes > 90 * small.peak_bytes


def test_convolutions_and_their_gradients_count_their_multiplications() -> None:
    graph = Graph(
        inputs=(Input("x", TensorType.of("float32", (2, 3, 8, 8))),),
        parameters=(
            Parameter("k1", TensorType.of("float32", (4, 3, 3, 3))),
            Parameter("k2", TensorType.of("float32", (6, 2, 3, 3))),
        ),
        nodes=(
            Node("Conv", ("x", "k1"), ("a",)),
            Node("Conv", ("a", "k2"), ("b",), {"group": 2}),
            Node("ReduceSum", ("b",), ("l",), {"keepdims": 0}),
        ),
        loss="l",
    )
    found = described(graph)
    first, second = 2 * (2 * 4 * 6 * 6) * (3 * 9), 2 * (2 * 6 * 4 * 4) * (2 * 9)
    assert found.forward_flops == first + second + 1
    products = first + 2 * second
    others = 2 * 6 * 4 * 4  # the gradient of the sum
    assert products <= found.backward_flops <= products + 2 * others


def test_a_graph_without_loss_is_differentiated_by_its_outputs() -> None:
    graph = Graph(inputs=(X,), nodes=(Node("Exp", ("x",), ("y",)),), outputs={"y": "y"})
    found = described(graph, x=(3, 4))
    assert (found.forward_flops, found.backward_flops) == (12, 12)
    integers = Graph(inputs=(X,), nodes=(Node("ArgMax", ("x",), ("y",)),), outputs={"y": "y"})
    assert described(integers, x=(3, 4)).backward_flops == 0


def test_peak_counts_values_that_live_at_the_same_time() -> None:
    nodes = [Node("Mul", (f"v{index}", "two"), (f"v{index + 1}",)) for index in range(20)]
    graph = Graph(
        inputs=(Input("v0", TensorType.of("float64", (1000,))),),
        constants={"two": np.array(2.0)},
        nodes=tuple(nodes),
        outputs={"y": "v20"},
    )
    assert 16_000 <= described(graph).peak_bytes < 5 * 8_000


@pytest.mark.parametrize(
    ("shapes", "error", "field"),
    [
        ({}, MissingInput, "input_shapes[x]"),
        ({"x": (7,)}, ShapeMismatch, "input_shapes[x]"),
        ({"x": (7, 5)}, ShapeMismatch, "input_shapes[x]"),
        ({"x": (7, 4), "t": (8, 2)}, ShapeMismatch, "input_shapes[t]"),
        ({"x": (7, 4), "z": (1,)}, UnknownInput, "input_shapes[z]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, Any], error: type[EngineError], field: str) -> None:
    with pytest.raises(error) as raised:
        input_types(NETWORK, shapes)
    assert raised.value.field == field
    assert not isinstance(raised.value, DtypeMismatch)


def test_an_input_that_nothing_depends_on_may_be_left_out() -> None:
    nodes = (Node("Neg", ("x",), ("y",)), Node("Neg", ("t",), ("unused",)))
    spare = Input("t", TensorType.of("float32", ("other", 2)))
    graph = Graph(inputs=(X, spare), nodes=nodes, outputs={"y": "y"})
    assert set(described(graph, x=(1, 4)).values) == {"x", "y"}


def test_a_shape_may_depend_on_a_known_parameter_but_not_on_an_input() -> None:
    sizes = Parameter("n", TensorType.of("int64", (2,)), frozen=True)
    graph = Graph(inputs=(X,), parameters=(sizes,), nodes=(Node("Reshape", ("x", "n"), ("y",)),), outputs={"y": "y"})
    found = described(graph, {"n": np.array([2, 6])}, x=(3, 4))
    assert found.outputs["y"].shape == (2, 6)
    given = Graph(
        inputs=(X, Input("n", TensorType.of("int64", (2,)))),
        nodes=(Node("Reshape", ("x", "n"), ("y",)),),
        outputs={"y": "y"},
    )
    with pytest.raises(MissingInput, match="elements of 'n'"):
        described(given, x=(3, 4))
