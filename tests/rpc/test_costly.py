"""Calls that would take too much are refused before they run, and the session stays as it was."""

from typing import Any

import numpy as np
import pytest

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2

X = {"x": tensors.encode(np.asarray([1.0, -2.0, 4.0]))}


@pytest.mark.parametrize("limit", ["max_call_flops", "max_call_bytes"])
def test_a_call_that_takes_too_much_changes_nothing(serve: Any, refused: Any, limit: str) -> None:
    api = serve(**{limit: 1})
    session = api.create()
    before = api.stub.GetSession(pb.GetSessionRequest(session_id=session, digest=True)).digest
    for call in (
        lambda: api.train(session),
        lambda: api.forward(session),
        lambda: api.stub.Forward(pb.ForwardRequest(session_id=session, inputs=X, mode=pb.MODE_EVAL)),
        lambda: api.stub.CheckGradients(pb.CheckGradientsRequest(session_id=session, inputs=X)),
    ):
        told = refused(call)
        assert (told.reason, told.quota) == ("CALL_TOO_LARGE", limit)
    found = api.stub.GetSession(pb.GetSessionRequest(session_id=session, digest=True))
    assert (found.digest, found.session.step) == (before, 0)


def test_what_a_call_needs_to_compute_counts_for_the_memory_of_all_only_meanwhile(serve: Any) -> None:
    api = serve()
    session = api.create()
    used = api.server._store.budget.used
    for _ in range(3):
        api.stub.Forward(pb.ForwardRequest(session_id=session, inputs=X, mode=pb.MODE_EVAL))
        assert api.server._store.budget.used == used


def test_a_graph_that_takes_too_long_to_compile_is_refused(serve: Any, graph: Any, refused: Any) -> None:
    nobody_had = graph(constants=[graph_pb2.Constant(name="of a graph of its own", value=tensors.encode(np.ones(3)))])
    told = refused(lambda: serve(max_compile_time=1e-9).create(nobody_had))
    assert (told.reason, told.quota) == ("GRAPH_TOO_LARGE", "max_compile_time")
