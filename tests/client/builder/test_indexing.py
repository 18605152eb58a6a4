"""What stands between the brackets of a value."""

from typing import Any

import numpy as np
import pytest
from tests.client.builder.test_values import I, M, X, nodes

import backwire as bw


@pytest.mark.parametrize(
    "key",
    [
        np.s_[0],
        np.s_[-1],
        np.s_[1:3],
        np.s_[::-1],
        np.s_[3:0:-2],
        np.s_[:, 1],
        np.s_[..., -1],
        np.s_[1, ..., 2:],
        np.s_[None, 0, :, None],
        np.s_[..., None],
        np.s_[:, None, 1:],
        np.s_[[0, 2]],
        np.s_[:, [[0, 1], [2, 0]]],
        np.s_[1:, ..., [3, 1]],
        np.s_[0, 1, 2],
        np.s_[5:],
        np.s_[()],
    ],
    ids=str,
)
def test_indexing_has_the_shape_that_numpy_says(key: Any) -> None:
    array = np.zeros((4, 3, 5))
    assert bw.input("a", array.shape)[key].shape == array[key].shape


def test_an_index_names_the_ops_it_needs() -> None:
    assert [node.op for node in nodes(X[:, 0])] == ["Slice", "Squeeze"]
    assert [node.op for node in nodes(X[None])] == ["Unsqueeze"]
    assert [node.op for node in nodes(M[I])] == ["Gather"]
    assert X[...] is X


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (np.s_[0, 0, 0, 0], "4 indices are too many for a value of rank 3"),
        (np.s_[:, 3], r"index 3 is outside axis 1 of \[batch, 3, 4\]; use -3 to 2"),
        (np.s_[..., 0, ...], "more than one"),
        (np.s_[::0], "step 0"),
        (np.s_[0, [1, 2]], "two steps"),
        (np.s_[[0], [1]], "two steps"),
        (np.s_[:, 0.5], "indices are integers"),
        (np.s_[:, "a"], "no array that can be sent"),
        (np.s_[0.5:], "no slice of integers"),
    ],
    ids=str,
)
def test_indices_that_cannot_be_are_refused(key: Any, message: str) -> None:
    with pytest.raises(bw.InvalidRequestError, match=message):
        X[key]


def test_a_mask_is_refused_with_the_remedy() -> None:
    with pytest.raises(bw.DTypeError, match=r"use bw\.where"):
        X[X > 0]


def test_labels_of_small_integer_types_are_widened_for_gather() -> None:
    assert [node.op for node in nodes(M[bw.input("u", (2,), "uint8")])] == ["Cast", "Gather"]
