"""Tensors and graphs that are too large are refused before anything of them is converted."""

import numpy as np
import pytest
from tests.graphs import dot_graph

from backwire_api import tensors
from backwire_api.v1 import graph_pb2, tensor_pb2
from backwire_server.messages.graph import graph_from_proto
from backwire_server.messages.tensor_limits import check_chunk, check_tensors
from backwire_server.sessions.errors import GraphTooLarge, MessageTooLarge
from backwire_server.sessions.limits import Limits

FLOAT = tensor_pb2.DATA_TYPE_FLOAT32


@pytest.mark.parametrize(
    ("limits", "quota"),
    [(Limits(max_tensor_rank=1), "max_tensor_rank"), (Limits(max_tensor_bytes=23), "max_tensor_bytes")],
)
def test_a_tensor_of_a_request_is_held_to_rank_and_bytes(limits: Limits, quota: str) -> None:
    given = {"fits": tensors.encode_raw(np.zeros(2)), "large": tensors.encode_raw(np.zeros((3, 1)))}
    check_tensors(given, Limits())
    with pytest.raises(MessageTooLarge, match="'large'") as caught:
        check_tensors(given, limits)
    assert caught.value.quota == quota


def test_a_chunk_is_held_to_what_the_whole_tensor_has() -> None:
    chunk = tensor_pb2.TensorChunk(name="x", dtype=FLOAT, shape=[10, 10], data=b"1234")
    check_chunk(chunk, Limits(max_tensor_bytes=400))
    with pytest.raises(MessageTooLarge, match="'x' has 400 bytes") as caught:
        check_chunk(chunk, Limits(max_tensor_bytes=399))
    assert caught.value.quota == "max_tensor_bytes"


@pytest.mark.parametrize(
    ("changes", "limits", "field", "quota"),
    [
        ({}, Limits(max_tensor_bytes=20), "graph.parameters[0].value", "max_tensor_bytes"),
        (
            {"constants": [graph_pb2.Constant(name="k", value=tensors.encode(np.zeros((2, 2))))]},
            Limits(max_tensor_rank=1),
            "graph.constants[0].value",
            "max_tensor_rank",
        ),
        ({}, Limits(max_attribute_bytes=1), "graph.nodes", "max_attribute_bytes"),
    ],
)
def test_a_graph_is_held_to_them_too(changes: dict[str, object], limits: Limits, field: str, quota: str) -> None:
    graph = dot_graph(**changes)
    graph_from_proto(graph, Limits())
    with pytest.raises(GraphTooLarge) as caught:
        graph_from_proto(graph, limits)
    assert (caught.value.field, caught.value.quota) == (field, quota)
