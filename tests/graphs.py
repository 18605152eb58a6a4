"""Graphs as messages that several folders of tests use."""

from typing import Any

import numpy as np

from backwire_api import tensors
from backwire_api.v1 import graph_pb2, tensor_pb2


def dot_graph(**changes: Any) -> graph_pb2.Graph:
    """The loss sum(x * (w + c)): its gradient by w is x, and by x it is w + c, as they were in the pass."""
    shape = [graph_pb2.Dimension(size=3)]
    graph = graph_pb2.Graph(
        inputs=[graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=shape)],
        parameters=[
            graph_pb2.Parameter(name="w", value=tensors.encode(np.array([1.0, 2.0, 3.0]))),
            graph_pb2.Parameter(name="c", value=tensors.encode(np.array([10.0, 20.0, 30.0])), frozen=True),
        ],
        nodes=[
            graph_pb2.Node(op="Add", inputs=["w", "c"], outputs=["total"]),
            graph_pb2.Node(op="Mul", inputs=["x", "total"], outputs=["y"]),
            graph_pb2.Node(
                op="ReduceSum", inputs=["y"], outputs=["loss"], attributes={"keepdims": graph_pb2.Attribute(integer=0)}
            ),
        ],
        outputs={"y": "y"},
        loss="loss",
    )
    for name, value in changes.items():
        graph.ClearField(name)  # type: ignore[arg-type]
        graph.MergeFrom(graph_pb2.Graph(**{name: value}))
    return graph
