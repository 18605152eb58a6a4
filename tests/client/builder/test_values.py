"""Values: operators, indexing, functions, and the shapes and dtypes that follow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import graph_pb2

X = bw.input("x", ("batch", 3, 4))
M = bw.input("m", (4, 5))
I = bw.input("i", ("batch",), "int64")  # noqa: E741
DIMS = X.shape or ()
B = bw.input("b", (4,), "bool")
IMAGES = bw.input("images", ("batch", 4, 8, 8))


def nodes(*values: bw.Value) -> list[graph_pb2.Node]:
    return list(bw.graph(outputs={f"y{index}": value for index, value in enumerate(values)}).proto.nodes)


def arguments(value: bw.Value) -> list[Any]:
    """Returns the constants among the inputs of the last node, None for others."""
    proto = bw.graph(outputs={"y": value}).proto
    constants = {each.name: tensors.decode(each.value).tolist() for each in proto.constants}
    return [constants.get(name) for name in proto.nodes[-1].inputs]


@pytest.mark.parametrize(
    ("value", "op", "shape"),
    [
        (X + 1, "Add", ("batch", 3, 4)),
        (1 + X, "Add", ("batch", 3, 4)),
        (X - 1, "Sub", ("batch", 3, 4)),
        (1 - X, "Sub", ("batch", 3, 4)),
        (X * [1, 2, 3, 4], "Mul", ("batch", 3, 4)),
        (np.ones((3, 1)) * X, "Mul", ("batch", 3, 4)),
        (X / 2, "Div", ("batch", 3, 4)),
        (2 / X, "Div", ("batch", 3, 4)),
        (X**2, "Pow", ("batch", 3, 4)),
        (2**X, "Pow", ("batch", 3, 4)),
        (-X, "Neg", ("batch", 3, 4)),
        (abs(X), "Abs", ("batch", 3, 4)),
        (X @ M, "MatMul", ("batch", 3, 5)),
        (np.ones((2, 3)) @ X, "MatMul", ("batch", 2, 4)),
        (X > 0, "Greater", ("batch", 3, 4)),
        (X >= 0, "GreaterOrEqual", ("batch", 3, 4)),
        (X < 0, "Less", ("batch", 3, 4)),
        (X <= 0, "LessOrEqual", ("batch", 3, 4)),
        (B & True, "And", (4,)),
        (B | [True, False, True, False], "Or", (4,)),
        (~B, "Not", (4,)),
        (X.T, "Transpose", (4, 3, "batch")),
    ],
)
def test_operators_are_one_node(value: bw.Value, op: str, shape: tuple[Any, ...]) -> None:
    assert [node.op for node in nodes(value)] == [op]
    assert value.shape == shape


@pytest.mark.parametrize(
    ("value", "op", "shape"),
    [
        (bw.exp(X), "Exp", ("batch", 3, 4)),
        (bw.gelu(X), "Gelu", ("batch", 3, 4)),
        (bw.softmax(X), "Softmax", ("batch", 3, 4)),
        (bw.maximum(X, 0, 1), "Max", ("batch", 3, 4)),
        (bw.minimum(X, M[0, :4]), "Min", ("batch", 3, 4)),
        (bw.clip(X, 0, 1), "Clip", ("batch", 3, 4)),
        (bw.where(B, X, 0), "Where", ("batch", 3, 4)),
        (bw.cast(X, "int64"), "Cast", ("batch", 3, 4)),
        (bw.sum(X), "ReduceSum", ()),
        (bw.sum(X, keepdims=True), "ReduceSum", (1, 1, 1)),
        (bw.mean(X, -1), "ReduceMean", ("batch", 3)),
        (bw.max(X, [1, 2], keepdims=True), "ReduceMax", ("batch", 1, 1)),
        (bw.reshape(X, (-1, 12)), "Reshape", ("batch", 12)),
        (bw.reshape(X, (DIMS[0], 6, -1)), "Reshape", ("batch", 6, 2)),
        (bw.reshape(X, ("batch", 12)), "Reshape", ("batch", 12)),
        (bw.reshape(X[1:], (None, -1)), "Reshape", (None, None)),
        (bw.reshape(X, (-1,)), "Reshape", (None,)),
        (bw.reshape(M, (2, -1)), "Reshape", (2, 10)),
        (bw.flatten(X), "Flatten", ("batch", 12)),
        (bw.flatten(X, 2), "Flatten", (None, 4)),
        (bw.transpose(X, (0, 2, 1)), "Transpose", ("batch", 4, 3)),
        (bw.unsqueeze(X, (0, -1)), "Unsqueeze", (1, "batch", 3, 4, 1)),
        (bw.broadcast_to(M, (3, 4, 5)), "Expand", (3, 4, 5)),
        (bw.concat([X, X], 1), "Concat", ("batch", 6, 4)),
        (bw.concat([X, X]), "Concat", (None, 3, 4)),
        (bw.split(X, 3, axis=1)[1], "Split", ("batch", 1, 4)),
        (bw.split(X, [1, 3], axis=-1)[1], "Split", ("batch", 3, 3)),
        (bw.take(M, I), "Gather", ("batch", 5)),
        (bw.take(X, [[0, 1]], axis=1), "Gather", ("batch", 1, 2, 4)),
        (bw.pad(M, [(1, 2), (0, -1)]), "Pad", (7, 4)),
        (bw.one_hot(I, 10), "OneHot", ("batch", 10)),
        (bw.shape(X), "Shape", (3,)),
        (bw.max_pool2d(IMAGES, 2), "MaxPool", ("batch", 4, 4, 4)),
        (bw.average_pool2d(IMAGES, 3, stride=2, padding=1), "AveragePool", ("batch", 4, 4, 4)),
        (bw.global_average_pool(IMAGES), "GlobalAveragePool", ("batch", 4, 1, 1)),
        (bw.dropout(X, 0.1), "Dropout", ("batch", 3, 4)),
    ],
)
def test_functions_know_their_shape(value: bw.Value, op: str, shape: tuple[Any, ...]) -> None:
    assert nodes(value)[-1].op == op
    assert value.shape == shape


def test_axes_and_the_like_are_inputs_as_in_onnxs_newest_opsets() -> None:
    assert arguments(bw.sum(X, [0, -1])) == [None, [0, 2]]
    assert arguments(bw.unsqueeze(X, 0)) == [None, [0]]
    assert arguments(bw.clip(X, None, 2)) == [None, None, 2]
    assert nodes(bw.clip(X, None, 2))[0].inputs[1] == ""
    assert arguments(bw.reshape(X, ("batch", -1))) == [None, [0, -1]]
    assert arguments(bw.pad(M, [(1, 2), (3, 4)], 7)) == [None, [1, 3, 2, 4], 7]
    assert arguments(bw.dropout(X, 0.25)) == [None, 0.25]
    assert arguments(X[:, 1:3]) == [None, [1], [3], [1], [1]]


def test_numbers_and_arrays_take_the_dtype_of_the_value() -> None:
    y = bw.input("y", (2,), "float64")
    assert (y * np.ones(2, np.float32)).dtype == np.float64
    assert (I * 2).dtype == np.int64
    assert (X * np.ones(4)).dtype == np.float32
    with pytest.raises(bw.DTypeError, match="must be int64"):
        I * 2.5
    with pytest.raises(bw.TensorError, match="outside the range of int8"):
        bw.input("s", (), "int8") + 1000


def test_values_of_different_dtypes_are_refused_with_the_remedy() -> None:
    with pytest.raises(
        bw.DTypeError, match=r"Add: <x: .*> and <i: .*> have different dtypes; convert one with bw.cast"
    ):
        X + I


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: X + M, bw.ShapeError, r"Add of x and m: shapes \[batch, 3, 4\] and \[4, 5\] do not broadcast"),
        (lambda: X @ X, bw.ShapeError, r"MatMul of x and x: .* since 4 is not 3; transpose or reshape one"),
        (lambda: X @ 2, bw.ShapeError, r"include a scalar; use \*"),
        (lambda: bw.reshape(M, (3, 7)), bw.ShapeError, r"reshape: \[4, 5\] and \[3, 7\] have different numbers"),
        (lambda: bw.reshape(M, (3, -1)), bw.ShapeError, "different numbers"),
        (lambda: bw.reshape(X, (5, 7)), bw.ShapeError, "different numbers"),
        (lambda: bw.reshape(M, (-1, -1)), bw.ShapeError, "more than one size open"),
        (lambda: bw.reshape(M, ("batch", 5)), bw.ShapeError, r"'batch' is no size of \[4, 5\]"),
        (lambda: bw.reshape(M, (None, 5)), bw.ShapeError, "None is no size"),
        (lambda: bw.reshape(M, (0, 20)), bw.ShapeError, "has the size 0"),
        (lambda: bw.reshape(M, (2.5, 8)), bw.GraphError, "is no size"),  # type: ignore[arg-type]
        (lambda: bw.concat([X, M]), bw.ShapeError, "differ outside axis 0"),
        (lambda: bw.sum(X, 3), bw.ShapeError, "axis 3 does not exist in rank 3; use -3 to 2"),
        (lambda: bw.sum(X, [0, -3]), bw.ShapeError, "name an axis twice"),
        (lambda: bw.sum(X, []), bw.GraphError, "reduces nothing"),
        (lambda: bw.sum(B), bw.DTypeError, "is bool"),
        (lambda: bw.softmax(X, 3), bw.ShapeError, "axis 3"),
        (lambda: bw.transpose(X, (0, 1)), bw.ShapeError, "every axis"),
        (lambda: bw.squeeze(X, 1), bw.ShapeError, "axis 1 has size 3, not 1"),
        (lambda: bw.split(X, 2, axis=1), bw.ShapeError, "does not divide into 2 equal parts"),
        (lambda: bw.split(X, [1, 1], axis=1), bw.ShapeError, "do not add up to the 3"),
        (lambda: bw.broadcast_to(M, (5,)), bw.ShapeError, "do not broadcast|cannot lower"),
        (lambda: bw.broadcast_to(M, (4, 1)), bw.ShapeError, "cannot shrink"),
        (lambda: bw.pad(M, [(1, 1)]), bw.ShapeError, "for each axis"),
        (lambda: bw.exp(I), bw.DTypeError, "Exp: <i: .*> is not floating-point; convert it with bw.cast"),
        (lambda: I / 2, bw.DTypeError, "not floating-point"),
        (lambda: B + True, bw.DTypeError, "is bool"),
        (lambda: X & True, bw.DTypeError, "not bool"),
        (lambda: ~X, bw.DTypeError, "not bool"),
        (lambda: bw.where(X, 1, 2), bw.DTypeError, "not bool"),
        (lambda: bw.maximum(1, 2), bw.GraphError, "none of its operands is a Value"),
        (lambda: bw.clip(X), bw.GraphError, "give low, high"),
        (lambda: bw.take(M, X), bw.DTypeError, "indices are integers"),
        (lambda: bw.one_hot(X, 3), bw.DTypeError, "not of an integer type"),
        (lambda: bw.dropout(X, 1.0), bw.InvalidRequestError, "0 <= rate < 1"),
        (lambda: bw.max_pool2d(X, 2), bw.ShapeError, "no batch of images"),
        (lambda: bw.max_pool2d(IMAGES, 9), bw.ShapeError, "MaxPool: a window of 9 does not fit into 8"),
        (lambda: bw.max_pool2d(IMAGES, (2, 0)), bw.ShapeError, "at least 1"),
        (lambda: bool(X > 0), bw.GraphError, "choose elements with bw.where"),
    ],
)
def test_mistakes_are_errors_where_they_are_made(
    build: Callable[[], Any], kind: type[bw.BackwireError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        build()


def test_values_cannot_be_iterated_but_are_hashable() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        iter(X)
    assert len({X, M, X}) == 2


dims = st.sampled_from([1, 2, 3])
