"""Counts of n-grams of integers."""

from functools import reduce
from itertools import pairwise
from operator import and_
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from backwire_server.engine.graph import Array as Known
from backwire_server.xla.registry import kernel

Ints = tuple[int, ...]


@kernel("TfIdfVectorizer")
def tf_idf_vectorizer(
    x: Array,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Ints,
    ngram_indexes: Ints,
    pool_int64s: Ints,
    weights: tuple[float, ...] | None,
    **_: Any,
) -> Array:
    """How often each n-gram of the pool is in each row of x [rows, elements] or [elements], as float32"""
    rows, bounds = x.reshape(-1, x.shape[-1]), [*ngram_counts, len(pool_int64s)]
    counts = []
    for n, (first, last) in enumerate(pairwise(bounds), start=1):
        grams = np.array(pool_int64s[first:last], np.int64).reshape(-1, n)
        found = jnp.zeros((rows.shape[0], len(grams)), jnp.float32)
        if len(grams) and min_gram_length <= n <= max_gram_length:
            for step in range(1, 2 + (max_skip_count if n > 1 else 0)):
                found += _found(rows, grams, step)
        counts.append(found)
    total = jnp.concatenate(counts, 1)
    if mode == "IDF":
        total = jnp.minimum(total, 1)
    if mode != "TF" and weights is not None:
        total *= np.array(weights, np.float32)
    result = jnp.zeros((rows.shape[0], max(ngram_indexes) + 1), jnp.float32).at[:, np.array(ngram_indexes)].add(total)
    return result.reshape(*x.shape[:-1], result.shape[1])


def _found(rows: Array, grams: Known, step: int) -> Array:
    """Returns how often each n-gram is in each row with its elements so many steps apart; of equals, the last."""
    n, count = grams.shape[1], rows.shape[1] - step * (grams.shape[1] - 1)
    if count <= 0:
        return jnp.zeros((rows.shape[0], len(grams)), jnp.float32)
    places = ((rows[:, at * step : at * step + count], grams[:, at]) for at in range(n))
    hits = reduce(and_, (elements[:, :, None] == numbers for elements, numbers in places))
    last = [place for place, gram in enumerate(grams) if not (grams[place + 1 :] == gram).all(1).any()]
    return jnp.sum(hits, 1, dtype=jnp.float32) * np.isin(np.arange(len(grams)), last).astype(np.float32)
