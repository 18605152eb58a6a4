"""Named arrays live side by side in one vector per dtype."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backwire_server.optim import FlatLayout

LAYOUT = FlatLayout({"a": ("float32", (2, 3)), "b": (np.float64, ()), "c": (np.dtype("float32"), (4,))})
F32, F64 = np.dtype("float32"), np.dtype("float64")


def test_arrays_of_one_dtype_follow_each_other_without_gaps() -> None:
    assert dict(LAYOUT.sizes) == {F32: 10, F64: 1}
    assert LAYOUT.slots["a"].span == slice(0, 6)
    assert LAYOUT.slots["b"].span == slice(0, 1)
    assert LAYOUT.slots["c"].span == slice(6, 10)


def test_views_write_through_to_the_vectors() -> None:
    vectors = LAYOUT.zeros()
    views = LAYOUT.views(vectors)
    views["a"][1, 2] = 5
    views["b"][...] = 7
    assert vectors[F32].tolist() == [0, 0, 0, 0, 0, 5, 0, 0, 0, 0]
    assert vectors[F64].tolist() == [7]


def test_pack_copies() -> None:
    array = np.ones((2, 3), F32)
    vectors = LAYOUT.pack({"a": array, "b": np.array(2.0), "c": np.zeros(4, F32)})
    array[...] = 9
    assert vectors[F32].tolist() == [1] * 6 + [0] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.ones((3, 2), F32)}, r"a is float32\[3, 2\]; the layout needs float32\[2, 3\]"),
        ({"a": np.ones((2, 3))}, r"a is float64\[2, 3\]; the layout needs float32"),
        ({"d": np.ones(1)}, r"differ in \['d'\]"),
    ],
)
def test_pack_names_what_does_not_fit(change: dict[str, NDArray[Any]], message: str) -> None:
    arrays = LAYOUT.views(LAYOUT.zeros())
    with pytest.raises(ValueError, match=message):
        LAYOUT.pack(arrays | change)


def test_a_dtype_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="index is int64; only float32 and float64"):
        FlatLayout({"index": ("int64", (3,))})


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(st.dictionaries(st.text(min_size=1), st.tuples(st.sampled_from(["float32", "float64"]), shapes), max_size=6))
def test_packing_and_viewing_is_the_identity(spec: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    generator = np.random.default_rng(0)
    arrays = {name: np.asarray(generator.standard_normal(shape), dtype) for name, (dtype, shape) in spec.items()}
    layout = FlatLayout(spec)
    views = layout.views(layout.pack(arrays))
    assert list(views) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(views[name], array, strict=True)
