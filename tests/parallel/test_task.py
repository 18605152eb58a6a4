"""Messages to helpers arrive as they were sent."""

import socket

import numpy as np

from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.parallel import task


def test_a_graph_of_nodes_that_were_made_without_attributes_arrives() -> None:
    single = np.dtype("float32")
    graph = Graph(
        inputs=(Input("x", TensorType(single, (2, 3))),), nodes=(Node("Relu", ("x",), ("y",)),), outputs={"y": "y"}
    )
    part = task.Part({"x": (single, (2, 3))}, None, key=(0, 1))
    order = task.Task(part, 1, graph, (), (), (), ())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        task.send(ours, order)
        assert task.receive(theirs) == (order, [])
