"""TfIdfVectorizer: counts of n-grams of integers."""

from itertools import pairwise
from typing import Any

import numpy as np

from backwire_server.engine.errors import DtypeMismatch, InvalidAttribute
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.resampling import choice
from backwire_server.engine.registry import op
from backwire_server.engine.samples import I, case
from backwire_server.engine.shapes import require_rank
from backwire_server.engine.values import Value

Ints = tuple[int, ...]
MODES = ("TF", "IDF", "TFIDF")
POOL: dict[str, Any] = {
    "ngram_counts": (0, 4),
    "ngram_indexes": (0, 1, 2, 3, 4, 5, 6),
    "pool_int64s": (2, 3, 5, 4, 5, 6, 7, 8, 6, 7),
}


def _grams(pool: Ints, starts: Ints) -> list[Array]:
    """Returns the n-grams of the pool as one array [grams, n] for each n from 1 on."""
    bounds = [*starts, len(pool)]
    return [np.array(pool[a:b], np.int64).reshape(-1, n) for n, (a, b) in enumerate(pairwise(bounds), start=1)]


def _check_pool(pool: Ints, starts: Ints, indexes: Ints, weights: tuple[float, ...] | None) -> None:
    bounds = [*starts, len(pool)]
    if not starts or bounds[0] != 0 or any((b - a) % n or b < a for n, (a, b) in enumerate(pairwise(bounds), start=1)):
        raise InvalidAttribute(
            f"ngram_counts is {list(starts)}; it must begin with 0 and cut the pool of {len(pool)} elements into whole "
            "1-grams, 2-grams and so on"
        )
    count = sum(len(grams) for grams in _grams(pool, starts))
    if len(indexes) != count or min(indexes, default=-1) < 0:
        raise InvalidAttribute(f"ngram_indexes is {list(indexes)}; it needs an entry of at least 0 for {count} n-grams")
    if weights is not None and len(weights) != count:
        raise InvalidAttribute(f"there are {len(weights)} weights for {count} n-grams; give one for each")


def _vector_type(
    x: Value,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Ints,
    ngram_indexes: Ints,
    pool_int64s: Ints | None = None,
    pool_strings: tuple[str, ...] | None = None,
    weights: tuple[float, ...] | None = None,
) -> TensorType:
    choice("mode", mode, MODES)
    if x.dtype not in (np.int32, np.int64):
        raise DtypeMismatch(f"{x.dtype.name} is not accepted here, only int32 or int64; use Cast")
    if pool_strings is not None or pool_int64s is None:
        raise InvalidAttribute("pool_strings is not supported; number the words and give pool_int64s")
    if not 1 <= min_gram_length <= max_gram_length <= len(ngram_counts) or max_skip_count < 0:
        raise InvalidAttribute(
            f"n-grams of {min_gram_length} to {max_gram_length} with up to {max_skip_count} skipped: the lengths must "
            f"rise from at least 1 to at most {len(ngram_counts)}, the entries of ngram_counts; skip 0 or more"
        )
    _check_pool(pool_int64s, ngram_counts, ngram_indexes, weights)
    require_rank(x, 1, 2)
    return TensorType.of(np.float32, (*x.shape[:-1], max(ngram_indexes) + 1))


@op(
    "TfIdfVectorizer",
    shape=_vector_type,
    samples=[
        case(
            I([1, 1, 3, 3, 3, 7], [8, 6, 7, 5, 6, 8]),
            mode="TF",
            min_gram_length=1,
            max_gram_length=2,
            max_skip_count=5,
            **POOL,
        ),
        case(
            I(5, 6, 7, 8, 6, 7),
            mode="TFIDF",
            min_gram_length=2,
            max_gram_length=2,
            max_skip_count=0,
            weights=(1.0, 1.0, 1.0, 1.0, 0.5, 2.0, 3.0),
            **POOL,
        ),
    ],
)
def tf_idf_vectorizer(
    x: Array,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Ints,
    ngram_indexes: Ints,
    pool_int64s: Ints | None = None,
    pool_strings: tuple[str, ...] | None = None,
    weights: tuple[float, ...] | None = None,
) -> Array:
    """How often each n-gram of the pool is in each row of x [rows, elements] or [elements], as float32.

    `ngram_counts` says where the 1-grams, 2-grams and so on begin in the pool, `ngram_indexes` at which place of the
    output each is counted. The elements of an n-gram are next to each other in the row, or in steps that leave out up
    to `max_skip_count` between them. IDF counts at most one; IDF and TFIDF multiply by the weight of the n-gram.
    """
    assert pool_int64s is not None
    rows = x.reshape(-1, x.shape[-1])
    counts = np.zeros((len(rows), len(ngram_indexes)), np.float32)
    first = 0
    for n, grams in enumerate(_grams(pool_int64s, ngram_counts), start=1):
        if len(grams) and min_gram_length <= n <= max_gram_length:
            for step in range(1, 2 + (max_skip_count if n > 1 else 0)):
                row, gram = _found(rows, grams, step)
                np.add.at(counts, (row, first + gram), 1)
        first += len(grams)
    if mode == "IDF":
        np.minimum(counts, 1, out=counts)
    if mode != "TF" and weights is not None:
        counts *= np.array(weights, np.float32)
    result = np.zeros((len(rows), max(ngram_indexes) + 1), np.float32)
    np.add.at(result.T, np.array(ngram_indexes), counts.T)
    return result.reshape(*x.shape[:-1], result.shape[1])


def _found(rows: Array, grams: Array, step: int) -> tuple[Array, Array]:
    """Returns the row and the number of each n-gram in the rows whose elements are that many steps apart."""
    n, extent = grams.shape[1], step * (grams.shape[1] - 1) + 1
    if extent > rows.shape[1]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(rows, extent, axis=1)[..., ::step]
    together = np.concatenate((grams, windows.reshape(-1, n)))
    kind = np.unique(together, axis=0, return_inverse=True)[1].reshape(-1)
    number = np.full(len(together), -1)
    number[kind[: len(grams)]] = np.arange(len(grams))
    found = number[kind[len(grams) :]].reshape(windows.shape[:2])
    row, place = np.nonzero(found >= 0)
    return row, found[row, place]
