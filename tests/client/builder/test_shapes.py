"""What is known of a shape before Forward."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.builder.test_values import M, X, dims

import backwire as bw
from backwire._builder import _shapes


def test_stack_and_split_undo_each_other() -> None:
    parts = bw.split(bw.input("a", (6, 2)), [1, 2, 3])
    assert [part.shape for part in parts] == [(1, 2), (2, 2), (3, 2)]
    assert len({id(part.source) for part in parts}) == 1
    assert bw.stack([M, M], axis=1).shape == (4, 2, 5)


def test_unknown_shapes_are_tolerated() -> None:
    (u,) = bw.op("Mystery", X)
    assert u.shape is None
    assert (u + X).shape is None
    assert (u @ M).shape is None
    assert bw.sum(u, 1).shape is None
    assert bw.sum(u).shape == ()
    assert bw.reshape(u, (2, -1)).shape == (2, None)
    assert bw.unsqueeze(u, 0).shape is None
    assert bw.concat([u, X]).shape is None
    assert bw.flatten(u).shape == (None, None)
    with pytest.raises(bw.GraphError, match="rank of its input"):
        u[0]


@given(st.lists(dims, max_size=4), st.lists(dims, max_size=4))
def test_broadcasting_agrees_with_numpy(a: list[int], b: list[int]) -> None:
    try:
        expected = np.broadcast_shapes(tuple(a), tuple(b))
    except ValueError:
        with pytest.raises(bw.ShapeError):
            _shapes.broadcast("Add", tuple(a), tuple(b))
    else:
        assert _shapes.broadcast("Add", tuple(a), tuple(b)) == expected


@given(st.lists(dims, max_size=4), st.lists(dims, max_size=4))
def test_matmul_agrees_with_numpy(a: list[int], b: list[int]) -> None:
    try:
        expected = (np.zeros(a) @ np.zeros(b)).shape
    except ValueError:
        with pytest.raises(bw.ShapeError):
            _shapes.matmul("MatMul", tuple(a), tuple(b))
    else:
        assert _shapes.matmul("MatMul", tuple(a), tuple(b)) == expected


@given(
    st.permutations([2, 3, 4]), st.sampled_from([(-1,), (6, -1), (-1, 2), (24,), (5, -1), (2, 3, 4), (7,), (1, -1, 1)])
)
def test_reshape_agrees_with_numpy(shape: list[int], target: tuple[int, ...]) -> None:
    try:
        expected = np.zeros(shape).reshape(target).shape
    except ValueError:
        with pytest.raises(bw.ShapeError):
            _shapes.reshaped(tuple(shape), target)
    else:
        assert _shapes.reshaped(tuple(shape), target) == (list(target), expected)


def test_names_of_sizes_survive_broadcasting_and_meet_numbers() -> None:
    assert _shapes.broadcast("Add", ("n", 1), (1, "m")) == ("n", "m")
    assert _shapes.broadcast("Add", ("n",), ("m",)) == (None,)
    assert _shapes.broadcast("Add", ("n",), (5,)) == (5,)
    assert _shapes.broadcast("Add", (None, 2), ("n", None)) == (None, 2)
