"""Graphs as messages."""

from collections.abc import Callable

import pytest
from tests.graphs import dot_graph

from backwire_api.v1 import graph_pb2


@pytest.fixture
def graph() -> Callable[..., graph_pb2.Graph]:
    return dot_graph
