"""TfIdfVectorizer against onnxruntime, and the pools that it refuses."""

from typing import Any

import numpy as np
import pytest
from tests.engine.one_node import compute, runtime

from backwire_server.engine.errors import DtypeMismatch, EngineError, InvalidAttribute, ShapeMismatch

POOL: dict[str, Any] = {
    "pool_int64s": (1, 2, 4, 1, 1, 2, 3, 3, 1, 1, 2, 3),
    "ngram_counts": (0, 3, 9),
    "ngram_indexes": (6, 1, 2, 0, 4, 5, 3),
    "mode": "TF",
    "min_gram_length": 1,
    "max_gram_length": 3,
    "max_skip_count": 2,
}
WEIGHTS = (0.5, 2.0, 1.0, -1.0, 3.0, 0.25, 4.0)
ROWS = np.random.default_rng(2).integers(1, 5, (6, 9))


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 3), (2, 2), (2, 3)])
@pytest.mark.parametrize("skip", [0, 2, 20])
def test_counts_are_onnxruntimes(mode: str, lengths: tuple[int, int], skip: int) -> None:
    settings = {**POOL, "mode": mode, "max_skip_count": skip, "weights": WEIGHTS}
    settings.update(min_gram_length=lengths[0], max_gram_length=lengths[1])
    found, expected = compute("TfIdfVectorizer", ROWS, **settings), runtime("TfIdfVectorizer", ROWS, **settings)
    np.testing.assert_array_equal(found, expected)


def test_a_single_row_gives_a_vector() -> None:
    found = compute("TfIdfVectorizer", np.array([1, 2, 3, 1], np.int32), **{**POOL, "max_skip_count": 0})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [0, 1, 0, 1, 1, 1, 2])


@pytest.mark.parametrize(
    ("x", "settings", "error", "message"),
    [
        (ROWS.astype(np.float32), {}, DtypeMismatch, "only int32 or int64"),
        (ROWS[None], {}, ShapeMismatch, "rank must be 1 to 2"),
        (ROWS, {"mode": "tf"}, InvalidAttribute, "use TF, IDF, TFIDF"),
        (ROWS, {"pool_strings": ("a",)}, InvalidAttribute, "number the words"),
        (ROWS, {"ngram_counts": (0, 3, 8)}, InvalidAttribute, "whole"),
        (ROWS, {"ngram_indexes": (0, 1)}, InvalidAttribute, "for 7 n-grams"),
        (ROWS, {"weights": (1.0,)}, InvalidAttribute, "1 weights for 7 n-grams"),
        (ROWS, {"min_gram_length": 0}, InvalidAttribute, "rise from at least 1"),
        (ROWS, {"max_gram_length": 4}, InvalidAttribute, "at most 3"),
    ],
)
def test_malformed_pools_are_refused(x: Any, settings: Any, error: type[EngineError], message: str) -> None:
    with pytest.raises(error, match=message):
        compute("TfIdfVectorizer", x, **{**POOL, **settings})
