"""What a graph accepts, and what it says about what it does not."""

import numpy as np
import pytest

from backwire_server.engine.errors import CyclicGraph, GraphError
from backwire_server.engine.graph import Graph, Input, Node, TensorType

X = Input("x", TensorType.of("float32", ("batch", 3)))


def relu(source: str, target: str) -> Node:
    return Node("Relu", (source,), (target,))


def test_nodes_may_come_in_any_order() -> None:
    graph = Graph(inputs=(X,), nodes=(relu("b", "c"), relu("x", "a"), relu("a", "b")), outputs={"y": "c"})
    assert [node.outputs[0] for node in graph.topological_nodes] == ["a", "b", "c"]


def test_a_cycle_is_named() -> None:
    with pytest.raises(CyclicGraph, match=r"'(a|b)' -> '(a|b)' -> '(a|b)'"):
        Graph(inputs=(X,), nodes=(relu("b", "a"), relu("a", "b")))


def test_a_long_chain_is_no_problem() -> None:
    chain = tuple(relu(f"v{i}" if i else "x", f"v{i + 1}") for i in range(20_000))
    assert len(Graph(inputs=(X,), nodes=tuple(reversed(chain))).topological_nodes) == 20_000


@pytest.mark.parametrize(
    ("graph", "message", "field"),
    [
        ({"nodes": (relu("nowhere", "a"),)}, "'nowhere', which nothing defines", "graph.nodes[0].inputs"),
        ({"inputs": (X, X)}, "'x' is defined twice", "graph.inputs[1].name"),
        ({"inputs": (X,), "nodes": (relu("x", "x"),)}, "'x' is defined twice", "graph.nodes[0].outputs"),
        ({"inputs": (X,), "constants": {"x": np.ones(1)}}, "'x' is defined twice", "graph.constants[0].name"),
        ({"outputs": {"y": "z"}}, "'z', which nothing defines", "graph.outputs"),
        ({"loss": "z"}, "'z', which nothing defines", "graph.loss"),
        ({"inputs": (X,), "outputs": {"loss": "x"}}, "reserved for the loss", "graph.outputs"),
        ({"inputs": (Input("%1", X.type),)}, "begins with '%'", "graph.inputs[0].name"),
        ({"inputs": (Input("", X.type),)}, "not empty", "graph.inputs[0].name"),
        ({"nodes": (Node("Relu", (), ("",)),)}, "has no output", "graph.nodes[0].outputs"),
    ],
)
def test_a_malformed_graph_is_refused_and_the_field_named(graph: dict, message: str, field: str) -> None:
    with pytest.raises(GraphError, match=message.replace("(", r"\(")) as caught:
        Graph(**graph)
    assert caught.value.field == field


def test_dependencies_are_everything_above() -> None:
    graph = Graph(inputs=(X,), nodes=(relu("x", "a"), relu("a", "b"), relu("x", "c")))
    assert graph.dependencies(["b"]) == {"b", "a", "x"}
