"""Equal graphs have one fingerprint, and graphs that differ in anything have another."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from ml_dtypes import bfloat16

from backwire_server.engine.dims import Symbolic
from backwire_server.engine.fingerprint import element_bytes, fingerprint
from backwire_server.engine.graph import Attribute, Graph, Input, Node, Parameter, TensorType


def network(constant: float = 0.5, outputs: Mapping[str, str] | None = None) -> Graph:
    return Graph(
        inputs=(Input("x", TensorType.of("float32", ("b", 3))),),
        parameters=(
            Parameter("w", TensorType.of("float32", (3,))),
            Parameter("m", TensorType.of("float32", (3,)), True),
        ),
        constants={"c": np.array([[constant, 2.0], [3.0, 4.0]])},
        nodes=(Node("Mul", ("x", "w"), ("y",)), Node("Neg", ("m",), ("n",), name="negative")),
        outputs=outputs or {"y": "y", "n": "n"},
        updates={"m": "n"},
    )


def with_attribute(value: Attribute) -> Graph:
    return Graph(nodes=(Node("Anything", (), ("y",), {"value": value}),))


def with_shape(*dims: int | Symbolic) -> Graph:
    return Graph(inputs=(Input("x", TensorType(np.dtype("f4"), dims)),))


def nan(payload: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", 0x7FF8 << 48 | payload))[0])


def test_equal_graphs_have_the_same() -> None:
    assert fingerprint(network()) == fingerprint(network())
    assert fingerprint(network(outputs={"n": "n", "y": "y"})) == fingerprint(network())
    assert fingerprint(with_attribute(np.arange(3))) == fingerprint(with_attribute(np.arange(3)))
    assert fingerprint(with_shape(np.int64(3))) == fingerprint(with_shape(3))  # type: ignore[arg-type]


CHANGES: Mapping[str, Callable[[Graph], Graph]] = {
    "an input's name": lambda g: replace(g, inputs=(replace(g.inputs[0], name="z"),), nodes=g.nodes[1:], outputs={}),
    "an input's type": lambda g: replace(g, inputs=(replace(g.inputs[0], type=TensorType.of("float64", ("b", 3))),)),
    "a dimension": lambda g: replace(g, inputs=(replace(g.inputs[0], type=TensorType.of("float32", ("a", 3))),)),
    "a parameter's shape": lambda g: replace(
        g, parameters=(replace(g.parameters[0], type=TensorType.of("float32", (1,))), g.parameters[1])
    ),
    "what is frozen": lambda g: replace(g, parameters=(replace(g.parameters[0], frozen=True), g.parameters[1])),
    "an element of a constant": lambda g: replace(g, constants={"c": network(0.25).constants["c"]}),
    "a constant's type": lambda g: replace(g, constants={"c": g.constants["c"].view("i8")}),
    "a constant's shape": lambda g: replace(g, constants={"c": g.constants["c"].reshape(4)}),
    "a constant's order in memory": lambda g: replace(g, constants={"c": np.asfortranarray(g.constants["c"])}),
    "an operator": lambda g: replace(g, nodes=(replace(g.nodes[0], op="Add"), g.nodes[1])),
    "inputs of a node": lambda g: replace(g, nodes=(replace(g.nodes[0], inputs=("w", "x")), g.nodes[1])),
    "the name of a node": lambda g: replace(g, nodes=(g.nodes[0], replace(g.nodes[1], name=""))),
    "the order of nodes": lambda g: replace(g, nodes=g.nodes[::-1]),
    "an output": lambda g: replace(g, outputs={"y": "n", "n": "n"}),
    "the loss": lambda g: replace(g, loss="y"),
    "the precision": lambda g: replace(g, precision=np.dtype(bfloat16)),
    "an update": lambda g: replace(g, updates={}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_graph_that_differs_has_another(change: Callable[[Graph], Graph]) -> None:
    assert fingerprint(change(network())).digest != fingerprint(network()).digest


def test_attributes_of_all_kinds_are_told_apart() -> None:
    values: list[Attribute] = [
        *(0, 1, "", "1", "1.0", 0.0, -0.0, 1.0, nan(0), nan(1)),
        *((), (1,), (1, 2), (12,), ("1",), ("1", "2"), ("1, 2",), (1.0,), (0.0,), (-0.0,), ("a\n", "b"), ("a", "\nb")),
        *(
            np.array(1),
            np.array([1]),
            np.array([1.0]),
            np.array([True]),
            np.zeros(1, "<V2"),
            np.zeros(1, "f2"),
            np.zeros(1, bfloat16),
        ),
    ]
    found = {fingerprint(with_attribute(value)).digest for value in values}
    assert len(found) == len(values)


def test_dimensions_of_all_kinds_are_told_apart() -> None:
    a, b = Symbolic.of("a"), Symbolic.of("b")
    shapes = [(), (1,), (a,), (b,), (a, b), (b, a), (a + b,), (Symbolic.of("a + b"),), (a * b,), (a * 2,), (a + 1,)]
    found = {fingerprint(with_shape(*shape)).digest for shape in shapes}  # type: ignore[arg-type]
    assert len(found) == len(shapes)


def test_arrays_and_long_texts_count_as_memory() -> None:
    assert element_bytes(network()) == 32
    assert element_bytes(with_attribute(np.zeros(1_000))) == 8_000
    assert fingerprint(with_attribute(np.zeros(1_000))).nbytes > 8_000
    assert fingerprint(with_attribute((7,) * 100_000)).nbytes > 8 * 100_000
    assert fingerprint(with_attribute("x" * 100_000)).nbytes > 100_000
