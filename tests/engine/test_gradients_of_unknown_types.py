"""What is known of gradients before shapes are: a value without a type is not taken for a floating-point one."""

import numpy as np

from backwire_server.engine import ops as _ops  # noqa: F401
from backwire_server.engine.builder import Builder
from backwire_server.engine.differentiate import undifferentiable
from backwire_server.engine.graph import TensorType
from backwire_server.engine.values import O, Value


def reshaped(builder: Builder) -> Value:
    """Returns x in a shape that an input gives, so that nothing is known of it but at run time."""
    x = builder.leaf("x", TensorType(np.dtype(np.float32), (3, 4)))
    sizes = builder.leaf("sizes", TensorType(np.dtype(np.int64), (2,)))
    return builder.emit("Reshape", [x, sizes], {})[0]


def test_a_test_for_nan_on_the_way_to_a_loss_is_no_obstacle() -> None:
    builder = Builder(training=True, abstract=True)
    h = reshaped(builder)
    (empty,) = builder.emit("IsNaN", [h], {})
    (kept,) = builder.emit("Where", [empty, builder.constant(np.zeros((), np.float32)), h], {})
    assert undifferentiable(builder, [kept.name], ["x"]) is None


def test_an_operator_without_gradient_of_known_type_is_found() -> None:
    builder = Builder(training=True, abstract=True)
    x = builder.leaf("x", TensorType(np.dtype(np.float32), (3, 4)))
    found = undifferentiable(builder, [O.BitCast(x, to="float32").name], ["x"])
    assert found is not None
    assert found.op.name == "BitCast"
