"""Hostile bytes find nothing in the server's readers but errors that calls end with; and what once did."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz import calling
from tests.fuzz.targets import LIMITS, TARGETS, seeds
from tests.fuzz.watch import Finding, TooSlow, attempt
from tests.graphs import dot_graph

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2
from backwire_server.engine.errors import InvalidAttribute
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.messages.graph import graph_from_proto
from backwire_server.sessions.store.store import SessionStore

SEEDED = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
@SEEDED
@given(data=st.binary(max_size=300))
def test_any_bytes_end_with_an_error_of_the_table(name: str, data: bytes) -> None:
    attempt(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
@SEEDED
@given(seed=st.integers(0, 2**32))
def test_valid_inputs_with_changed_bytes_end_with_an_error_of_the_table(name: str, seed: int) -> None:
    draws = random.Random(seed)
    data = bytearray(draws.choice(seeds(name)))
    for _ in range(draws.randint(0, 3)):
        data[draws.randrange(len(data))] = draws.randrange(256)
    attempt(TARGETS[name], bytes(data))


@pytest.mark.parametrize("error", [AttributeError, KeyError, RecursionError, MemoryError, AssertionError, TooSlow])
def test_an_error_that_is_not_in_the_table_is_a_finding(error: type[BaseException]) -> None:
    def wrong(_: bytes) -> None:
        raise error("wrong")

    with pytest.raises(Finding, match=f"{error.__name__} at test_seeded.py"):
        attempt(wrong, b"")


def test_an_input_that_takes_too_long_is_a_finding() -> None:
    def endless(_: bytes) -> None:
        while True:
            pass

    with pytest.raises(Finding, match="TooSlow"):
        attempt(endless, b"")


def test_an_error_that_a_call_only_tells_as_internal_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise KeyError("wrong")

    monkeypatch.setattr(SessionStore, "list", wrong)
    with pytest.raises(KeyError, match="wrong"):
        calling.service().ask("ListSessions", pb.ListSessionsRequest())


def test_a_change_of_the_session_of_another_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    service = calling.service()
    service.check()
    other = dot_graph()
    other.parameters[0].value.CopyFrom(tensors.encode(np.zeros(3)))
    monkeypatch.setattr(service, "_bystander", service.create(graph=other))
    with pytest.raises(AssertionError, match="changed the session of another"):
        service.check()
    monkeypatch.undo()
    service.clean()


FOUND = {
    "an operator of any number of inputs, of which one is left out": (
        "graph",
        "0080ff00000064646b9b9b9b9b9b9b9b9b7ab07e0003000000002d",
    ),
    "zeros for an unpooled image made before it is computed": (
        "service",
        "01010000000000000006262626262626262626262626262626262626262026262626262626262626ffffff0000000440000057",
    ),
    "a split into more parts than fit into memory": (
        "graph",
        "01c900114b01000100feffffffffff73696c75fe171717171717ff0f000000",
    ),
    "an axis to sum along that is no integer": ("service", "69d3fe3dff0a02ff4130293900"),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_before_is_mended(what: str) -> None:
    name, data = FOUND[what]
    attempt(TARGETS[name], bytes.fromhex(data))


def test_an_equation_that_is_no_text_is_refused_with_its_field() -> None:
    message = graph_pb2.Graph(
        constants=[graph_pb2.Constant(name="a", value=tensors.encode(np.ones(3)))],
        nodes=[graph_pb2.Node(op="Einsum", inputs=["a"], outputs=["b"])],
        outputs={"b": "b"},
    )
    message.nodes[0].attributes["equation"].integer = 3
    graph, _ = graph_from_proto(message, LIMITS)
    with pytest.raises(InvalidAttribute, match="attribute 'equation' is 3, but must be of kind str") as caught:
        PlanCache(graph)
    assert caught.value.field == "graph.nodes[b]"
