"""The number of examples is known by the shapes that graphs read off their batches, and must not be calculated with."""

import numpy as np
import pytest

from backwire_server.engine.dims import Symbolic
from backwire_server.engine.errors import NotSplittable
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.parallel.split import Split


def by_the_count(*, as_a_number: bool) -> Graph:
    """As exporters write it: sizes are read off a shape, and used as such, or as numbers."""
    batch = Symbolic.of("batch")
    nodes = (
        Node("Shape", ("x",), ("shape",)),
        Node("Gather", ("shape", "zero"), ("count",)),
        Node("Concat", ("count", "rest"), ("flat",), {"axis": 0}),
        Node("Reshape", ("x", "flat"), ("rows",)),
        Node("Cast", ("count",), ("number",), {"to": "float32"}),
        Node("Mul", ("rows", "number" if as_a_number else "half"), ("scaled",)),
        Node("ReduceMean", ("scaled",), ("loss",), {"keepdims": 0}),
    )
    constants = {"zero": np.array([0]), "rest": np.array([6]), "half": np.array([0.5], np.float32)}
    return Graph(
        (Input("x", TensorType(np.dtype(np.float32), (batch, 2, 3))),), (), constants, nodes, {"rows": "rows"}, "loss"
    )


def test_a_size_read_off_a_shape_may_be_a_shape_again() -> None:
    split = Split(by_the_count(as_a_number=False))
    for _ in range(2):
        assert split.joints({"x": np.zeros((4, 2, 3), np.float32)}, ["rows"]) == {"rows": 0}


def test_of_a_kind_of_batches_what_is_known_of_loss_and_outputs_is_kept_alone() -> None:
    split = Split(by_the_count(as_a_number=False))
    split.joints({"x": np.zeros((4, 2, 3), np.float32)}, [])
    assert [set(kept.states) for kept in split._settled.values()] == [{"rows", "loss"}]


def test_the_number_of_examples_must_not_be_calculated_with() -> None:
    split = Split(by_the_count(as_a_number=True))
    with pytest.raises(NotSplittable, match="Cast node 'number' computes with the number of examples") as caught:
        split.joints({"x": np.zeros((4, 2, 3), np.float32)}, [])
    assert caught.value.field == "graph.nodes[4]"


def repeated(*nodes: Node) -> Graph:
    """With the shape, the count of examples, and what is as large as the batch twice, for these nodes to use."""
    given = (
        Node("Shape", ("x",), ("shape",)),
        Node("Gather", ("shape", "zero"), ("count",)),
        Node("Concat", ("count", "shape"), ("twice",), {"axis": 0}),
        Node("ReduceMean", ("x",), ("mean",), {"keepdims": 0}),
    )
    constants = {"zero": np.array([0]), "one": np.array([1])}
    x = Input("x", TensorType(np.dtype(np.float32), (Symbolic.of("batch"), 3)))
    return Graph((x,), (), constants, (*given, *nodes), {}, "loss")


MEANS_SUMMED = repeated(
    Node("Expand", ("mean", "shape"), ("made",)),
    Node("ReduceSum", ("made",), ("loss",), {"keepdims": 0}),
)

EXAMPLES_SUMMED = repeated(
    Node("Unsqueeze", ("x", "one"), ("apart",)),
    Node("Expand", ("apart", "twice"), ("made",)),
    Node("ReduceSum", ("made", "one"), ("sums",), {"keepdims": 0}),
    Node("ReduceMean", ("sums",), ("loss",), {"keepdims": 0}),
)

COUNT_OF_EACH = repeated(
    Node("Expand", ("count", "shape"), ("counts",)),
    Node("Cast", ("counts",), ("made",), {"to": "float32"}),
    Node("Div", ("x", "made"), ("shares",)),
    Node("ReduceMean", ("shares",), ("loss",), {"keepdims": 0}),
)


@pytest.mark.parametrize("graph", [MEANS_SUMMED, EXAMPLES_SUMMED, COUNT_OF_EACH])
def test_nothing_is_made_once_more_for_each_example(graph: Graph) -> None:
    given = {"x": np.zeros((5, 3), np.float32)}
    with pytest.raises(NotSplittable, match="node 'made' computes with the number of examples"):
        Split(graph).joints(given, [])
