"""Graphs come off the wire as they were meant, and what is wrong in one is told by its path."""

import math
from typing import Any

import numpy as np
import pytest

from backwire_api import tensors
from backwire_api.v1 import graph_pb2, tensor_pb2
from backwire_server.engine.dims import Symbolic
from backwire_server.engine.errors import EngineError
from backwire_server.messages.graph import OPSETS, graph_from_proto
from backwire_server.sessions.errors import GraphTooLarge, SessionError, UnsupportedOpset
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.training.initializers import Distribution, Initializer

FLOAT, INT64 = tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_INT64
Attribute = graph_pb2.Attribute


def convert(graph: graph_pb2.Graph, **limits: int) -> Any:
    return graph_from_proto(graph, Limits(**limits))


def initializer(**fields: Any) -> graph_pb2.Initializer:
    return graph_pb2.Initializer(
        **{"dtype": FLOAT, "shape": [2], "distribution": graph_pb2.Initializer.DISTRIBUTION_NORMAL, **fields}
    )


def test_everything_of_a_graph_is_kept(graph: Any) -> None:
    found, sources = convert(graph())
    assert [item.name for item in found.inputs] == ["x"]
    assert [(item.name, str(item.type), item.frozen) for item in found.parameters] == [
        ("w", "float64[3]", False),
        ("c", "float64[3]", True),
    ]
    assert [(node.op, node.inputs, node.outputs) for node in found.nodes] == [
        ("Add", ("w", "c"), ("total",)),
        ("Mul", ("x", "total"), ("y",)),
        ("ReduceSum", ("y",), ("loss",)),
    ]
    assert found.nodes[2].attributes == {"keepdims": 0}
    assert (dict(found.outputs), found.loss) == ({"y": "y"}, "loss")
    np.testing.assert_array_equal(sources["w"], [1, 2, 3])


def test_symbols_become_symbolic_dimensions() -> None:
    shape = [graph_pb2.Dimension(symbol="batch"), graph_pb2.Dimension(size=0)]
    found, _ = convert(graph_pb2.Graph(inputs=[graph_pb2.Input(name="x", dtype=FLOAT, shape=shape)]))
    assert found.inputs[0].type.shape == (Symbolic.of("batch"), 0)


def test_no_loss_is_none() -> None:
    assert convert(graph_pb2.Graph())[0].loss is None


def test_attributes_of_every_kind() -> None:
    given = {
        "integer": Attribute(integer=-3),
        "number": Attribute(number=0.5),
        "text": Attribute(text="same"),
        "integers": Attribute(integers=Attribute.Integers(items=[1, 2])),
        "numbers": Attribute(numbers=Attribute.Numbers(items=[0.5])),
        "texts": Attribute(texts=Attribute.Texts(items=["a"])),
        "empty": Attribute(integers=Attribute.Integers()),
        "tensor": Attribute(tensor=tensors.encode(np.ones(2))),
    }
    shape = graph_pb2.Input(name="x", dtype=FLOAT)
    node = graph_pb2.Node(op="Any", inputs=["x", ""], outputs=["y", ""], attributes=given, name="mine")
    found = convert(graph_pb2.Graph(inputs=[shape], nodes=[node]))[0].nodes[0]
    np.testing.assert_array_equal(found.attributes.pop("tensor"), np.ones(2))
    assert found.attributes == {
        "integer": -3,
        "number": 0.5,
        "text": "same",
        "integers": (1, 2),
        "numbers": (0.5,),
        "texts": ("a",),
        "empty": (),
    }
    assert (found.inputs, found.outputs, found.name) == (("x", ""), ("y", ""), "mine")


def test_initializers_take_their_defaults_and_their_figures() -> None:
    plain = graph_pb2.Parameter(name="a", initializer=initializer())
    rich = initializer(
        distribution=graph_pb2.Initializer.DISTRIBUTION_HE_UNIFORM,
        shape=[3, 4],
        gain=2,
        unit_axis=1,
        location=3,
        scale=4,
    )
    _, sources = convert(graph_pb2.Graph(parameters=[plain, graph_pb2.Parameter(name="b", initializer=rich)]))
    single = np.dtype(np.float32)
    assert sources["a"] == Initializer(single, (2,), Distribution.NORMAL, 1.0, 0, 0.0, 1.0)
    assert sources["b"] == Initializer(single, (3, 4), Distribution.HE_UNIFORM, 2.0, 1, 3.0, 4.0)


@pytest.mark.parametrize("version", [0, *OPSETS])
def test_supported_operator_sets(version: int) -> None:
    convert(graph_pb2.Graph(opset_version=version))


@pytest.mark.parametrize("version", [-1, 1, OPSETS[0] - 1, OPSETS[-1] + 1, 2**63 - 1])
def test_other_operator_sets_are_refused(version: int) -> None:
    with pytest.raises(UnsupportedOpset):
        convert(graph_pb2.Graph(opset_version=version))


def wrong(**fields: Any) -> graph_pb2.Graph:
    return graph_pb2.Graph(**fields)


def parameter(**fields: Any) -> graph_pb2.Graph:
    return wrong(parameters=[graph_pb2.Parameter(name="p", **fields)])


def attribute(value: Attribute) -> graph_pb2.Graph:
    return wrong(nodes=[graph_pb2.Node(op="Add", outputs=["y"], attributes={"axis": value})])


SHORT = tensor_pb2.Tensor(dtype=FLOAT, shape=[2], data=b"123")
CASES = {
    "graph.inputs[0].dtype": wrong(inputs=[graph_pb2.Input(name="x")]),
    "graph.inputs[0].shape[1]": wrong(
        inputs=[graph_pb2.Input(name="x", dtype=FLOAT, shape=[graph_pb2.Dimension(size=1), graph_pb2.Dimension()])]
    ),
    "graph.inputs[0].shape": wrong(
        inputs=[graph_pb2.Input(name="x", dtype=FLOAT, shape=[graph_pb2.Dimension(size=-1)])]
    ),
    "graph.parameters[0]": parameter(),
    "graph.parameters[0].value": parameter(value=SHORT),
    "graph.parameters[0].initializer.dtype": parameter(initializer=initializer(dtype=INT64)),
    "graph.parameters[0].initializer.shape": parameter(initializer=initializer(shape=[2**40, 2**40])),
    "graph.parameters[0].initializer.distribution": parameter(initializer=initializer(distribution=0)),
    "graph.parameters[0].initializer.scale": parameter(initializer=initializer(scale=math.nan)),
    "graph.constants[0].value": wrong(constants=[graph_pb2.Constant(name="k", value=SHORT)]),
    "graph.constants[1].name": wrong(
        constants=[graph_pb2.Constant(name="k", value=tensors.encode(np.ones(1))) for _ in range(2)]
    ),
    "graph.nodes[0].attributes[axis]": attribute(Attribute()),
    "graph.nodes[0].inputs": wrong(nodes=[graph_pb2.Node(op="Add", inputs=["nope"], outputs=["y"])]),
    "graph.nodes[0].outputs": wrong(nodes=[graph_pb2.Node(op="Add")]),
    "graph.outputs": wrong(outputs={"y": "nope"}),
    "graph.loss": wrong(loss="nope"),
}


@pytest.mark.parametrize("field", CASES)
def test_the_path_of_what_is_wrong_is_told(field: str) -> None:
    with pytest.raises((EngineError, SessionError)) as caught:
        convert(CASES[field])
    assert getattr(caught.value, "field", None) == field


def test_a_broken_tensor_in_an_attribute_is_told_by_its_path() -> None:
    with pytest.raises(SessionError) as caught:
        convert(attribute(Attribute(tensor=SHORT)))
    assert caught.value.field == "graph.nodes[0].attributes[axis]"


@pytest.mark.parametrize(
    ("limits", "graph", "field"),
    [
        ({"max_graph_nodes": 1}, wrong(nodes=[graph_pb2.Node()] * 2), "graph.nodes"),
        ({"max_graph_nodes": 1}, wrong(inputs=[graph_pb2.Input()] * 2), "graph.inputs"),
        ({"max_graph_nodes": 1}, wrong(constants=[graph_pb2.Constant()] * 2), "graph.constants"),
        ({"max_graph_nodes": 1}, wrong(outputs={"a": "x", "b": "x"}), "graph.outputs"),
        ({"max_graph_nodes": 1}, wrong(nodes=[graph_pb2.Node(inputs=["x"] * 100)]), "graph.nodes"),
        ({"max_parameters": 1}, wrong(parameters=[graph_pb2.Parameter()] * 2), "graph.parameters"),
    ],
)
def test_size_is_checked_before_anything_else(limits: dict[str, int], graph: graph_pb2.Graph, field: str) -> None:
    with pytest.raises(GraphTooLarge) as caught:
        convert(graph, **limits)
    assert caught.value.field == field
    assert caught.value.quota == next(iter(limits))
