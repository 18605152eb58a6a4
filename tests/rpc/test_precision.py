"""Which precision the products of a session get, and what a session tells of it."""

from typing import Any

import pytest

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.graph import DType
from backwire_server.engine.narrow import BFLOAT16, HALF, SINGLE
from backwire_server.messages.precisions import precision_of, precision_to_proto
from backwire_server.messages.session import session_spec
from backwire_server.sessions.limits import Limits


def test_products_are_of_float32_unless_the_request_says_otherwise(api: Any) -> None:
    assert api.info(api.create()).precision == pb.PRECISION_FLOAT32
    assert api.info(api.create(precision=pb.PRECISION_BFLOAT16)).precision == pb.PRECISION_BFLOAT16


def test_a_precision_that_does_not_exist_is_refused(api: Any, refused: Any) -> None:
    told = refused(lambda: api.create(precision=9))
    assert (told.code.name, told.field) == ("INVALID_ARGUMENT", "precision")


def test_the_definition_of_a_session_has_its_precision(graph: Any) -> None:
    request = pb.CreateSessionRequest(graph=graph(), precision=pb.PRECISION_BFLOAT16)
    spec = session_spec(request, Limits())
    again = session_spec(pb.CreateSessionRequest.FromString(spec.definition), Limits())
    assert (spec.graph.precision, again.graph.precision) == (BFLOAT16, BFLOAT16)


@pytest.mark.parametrize("precision", [SINGLE, BFLOAT16, HALF], ids=str)
def test_every_precision_has_a_number(precision: DType) -> None:
    assert precision_of(precision_to_proto(precision)) == precision
    assert precision_of(pb.PRECISION_UNSPECIFIED) == SINGLE
