"""Inputs, parameters and constants: what they say of themselves, and what none can be."""

import numpy as np
import pytest

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import graph_pb2


def test_inputs_say_dtype_and_dimensions() -> None:
    proto = bw.graph(outputs={"y": bw.input("x", ("batch", None, 3), "float64")}).proto
    (x,) = proto.inputs
    assert tensors.dtype_of(x.dtype) == np.float64
    assert [dim.symbol or dim.size for dim in x.shape] == ["batch", "x_1", 3]


@pytest.mark.parametrize("shape", [3, "batch", (-1,), ("",), (2.5,), (True,)])
def test_shapes_that_are_none_are_refused(shape: object) -> None:
    with pytest.raises(bw.ShapeError, match="is no shape"):
        bw.input("x", shape)  # type: ignore[arg-type]


def test_dtypes_that_cannot_be_sent_are_refused() -> None:
    for dtype in ("complex64", "nonsense", "S3", object):
        with pytest.raises(bw.DTypeError, match="no dtype that can be sent"):
            bw.input("x", (), dtype)
    assert bw.input("x", (), "bfloat16").dtype.name == "bfloat16"


def test_a_parameter_is_a_value_or_a_shape() -> None:
    w = bw.parameter("w", np.eye(2))
    assert (w.dtype.name, w.shape) == ("float32", (2, 2))
    assert bw.parameter("w", [1, 2, 3]).shape == (3,)
    assert bw.parameter("w", 3).shape == ()
    assert bw.parameter("w", (3,)).shape == (3,)
    assert bw.parameter("w", (1.5, 2.5)).shape == (2,)
    proto = bw.graph(outputs={"w": bw.parameter("w", (4, 5), dtype="float64", frozen=True)}).proto
    (message,) = proto.parameters
    assert message.frozen
    assert list(message.initializer.shape) == [4, 5]
    assert message.initializer.dtype == tensors.data_type_of(np.dtype(np.float64))


def test_shapes_are_drawn_by_glorot_and_vectors_are_zero_by_default() -> None:
    values = {"m": bw.parameter("m", (4, 5)), "v": bw.parameter("v", (5,))}
    m, v = bw.graph(outputs=values).proto.parameters
    assert m.initializer.distribution == graph_pb2.Initializer.DISTRIBUTION_GLOROT_UNIFORM
    assert m.initializer.unit_axis == 1
    assert v.initializer.distribution == graph_pb2.Initializer.DISTRIBUTION_CONSTANT


def test_parameters_that_make_no_sense_are_refused() -> None:
    with pytest.raises(bw.DTypeError, match="cannot be trained; pass frozen=True"):
        bw.parameter("w", [1, 2], dtype="int64")
    with pytest.raises(bw.GraphError, match="a value and an initializer"):
        bw.parameter("w", [1.0], initializer=bw.Zeros())
    with pytest.raises(bw.ShapeError, match="unit_axis 2 does not exist"):
        bw.parameter("w", (3, 4), unit_axis=2)
    with pytest.raises(bw.DTypeError, match="draws float32 and float64"):
        bw.parameter("w", (3, 4), dtype="float16")


def test_constants_of_floating_point_data_are_float32_unless_told_otherwise() -> None:
    assert bw.constant(np.ones(3)).dtype == np.float32
    assert bw.constant(1.5, "float64").dtype == np.float64
    assert bw.constant([1, 2]).dtype == np.int64
    assert bw.constant([True]).dtype == np.bool_
