"""Precisions of products, as the contract tells them."""

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.graph import DType
from backwire_server.engine.narrow import BFLOAT16, HALF, SINGLE
from backwire_server.messages.calls import known

_PRECISIONS = {
    pb.PRECISION_UNSPECIFIED: SINGLE,
    pb.PRECISION_FLOAT32: SINGLE,
    pb.PRECISION_BFLOAT16: BFLOAT16,
    pb.PRECISION_FLOAT16: HALF,
}
_NUMBERS = {precision: number for number, precision in _PRECISIONS.items()}


def precision_of(number: pb.Precision.ValueType) -> DType:
    """Returns the type, float32 where the request names none; raises InvalidRequest for one that does not exist."""
    return known(_PRECISIONS, number, "precision")


def precision_to_proto(precision: DType) -> pb.Precision.ValueType:
    """Returns the number of the precision."""
    return _NUMBERS[precision]
