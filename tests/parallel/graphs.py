"""Graphs of the builder as the engine has them."""

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.graph import Graph
from backwire_server.messages.session import session_spec
from backwire_server.sessions.limits import Limits


def engine_form(graph: bw.Graph) -> Graph:
    """Returns a graph of the builder."""
    return session_spec(pb.CreateSessionRequest(graph=graph.proto), Limits()).graph


def engine_graph(loss: bw.Value, **outputs: bw.Value) -> Graph:
    """Returns the graph of a loss and outputs."""
    return engine_form(bw.graph(loss=loss, outputs=outputs))
