"""An answer of another server is taken for what was asked, and for nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from backwire_api.v1 import peer_pb2
from backwire_server.messages.parts import result_to_proto
from backwire_server.parallel.segment import Segment, packed
from backwire_server.parallel.task import Part, Result
from backwire_server.rpc.replicas.peer_answer import Arriving
from backwire_server.rpc.replicas.peer_wire import Chunk

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.arange(2, dtype=np.float64)
STEP = Part({"x": (X.dtype, X.shape)}, ("y",), (1, 2))
FORWARD = replace(STEP, differentiates=False)
BACKWARD = replace(STEP, tells=False, wrt=("x",))


def answered(arriving: Arriving, result: Result, *content: memoryview) -> Result:
    arriving.take(peer_pb2.ComputePartsResponse(result=result_to_proto(result)))
    for data in content:
        assert not arriving.whole
        arriving.take(Chunk(data))
    assert arriving.whole
    return arriving.result()


def test_a_pass_that_is_not_differentiated_has_no_gradients() -> None:
    gradients = Segment(64)
    found = answered(Arriving(FORWARD, gradients), Result(None, {"y": Y}, ()), packed({"y": Y}))
    np.testing.assert_array_equal(found.outputs["y"], Y)
    assert (found.loss, found.parameters, found.inputs) == (None, (), {})
    assert not any(gradients.content())
    silent = replace(FORWARD, outputs=())
    assert answered(Arriving(silent, gradients), Result(1.5, {}, ())).loss == 1.5


def test_gradients_of_inputs_come_behind_outputs_and_those_of_parameters_lie_where_they_are_to() -> None:
    gradients = Segment(64)
    part, result = replace(BACKWARD, tells=True), Result(0.0, {"y": Y}, ("w",), {"x": X})
    found = answered(
        Arriving(part, gradients), result, memoryview(b"\x07" * 64), packed(result.outputs), packed(result.inputs)
    )
    assert (found.loss, found.parameters) == (0.0, ("w",))
    np.testing.assert_array_equal(found.outputs["y"], Y)
    np.testing.assert_array_equal(found.inputs["x"], X)
    assert bytes(gradients.content()) == b"\x07" * 64


@pytest.mark.parametrize(
    ("part", "result", "match"),
    [
        (BACKWARD, Result(1.0, {"y": Y}, ("w",), {"x": X}), "outputs came that were not asked for: y"),
        (BACKWARD, Result(1.0, {}, ("w",)), "other inputs came than of x"),
        (BACKWARD, Result(1.0, {}, ("w",), {"x": X.T}), "other inputs came than of x"),
        (BACKWARD, Result(1.0, {}, ("w",), {"x": X.astype(np.float64)}), "other inputs came than of x"),
        (STEP, Result(1.0, {"y": Y}, ("w",), {"x": X}), "other inputs came than of none"),
    ],
)
def test_what_was_not_asked_for_is_refused(part: Part, result: Result, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Arriving(part, Segment(64)).take(peer_pb2.ComputePartsResponse(result=result_to_proto(result)))


@pytest.mark.parametrize(("part", "nbytes"), [(FORWARD, 65), (BACKWARD, 65), (STEP, 65)])
def test_more_bytes_than_there_is_a_place_for_are_refused(part: Part, nbytes: int) -> None:
    arriving = Arriving(part, Segment(64))
    outputs, inputs = ({"y": Y} if part.tells else {}), dict.fromkeys(part.wrt, X)
    arriving.take(peer_pb2.ComputePartsResponse(result=result_to_proto(Result(1.0, outputs, (), inputs))))
    with pytest.raises(ValueError, match=f"{nbytes} bytes came that nobody has a place for"):
        arriving.take(Chunk(memoryview(bytes(nbytes))))
