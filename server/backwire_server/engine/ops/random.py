"""Randomness: a pure function of the session's seed, the number of the pass and the place in the graph."""

from typing import Any

import numpy as np

from backwire_server.engine.errors import InvalidValue
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import function, op
from backwire_server.engine.samples import F, case
from backwire_server.engine.values import O, Value


def _stream_type(key: Value, *, shape: tuple[int, ...], dtype: str, stream: int) -> TensorType:
    return TensorType.of(dtype, shape)


@op(
    "RandomStream",
    shape=_stream_type,
    samples=[case(np.array([1, 2], np.uint64), shape=(2, 3), dtype="float32", stream=7)],
    internal=True,
)
def random_stream(key: Array, *, shape: tuple[int, ...], dtype: str, stream: int) -> Array:
    """Uniform numbers in [0, 1) from Philox (Salmon et al. 2011) under the key."""
    generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
    drawn: Any = np.float64 if dtype == "float64" else np.float32
    return generator.random(shape, drawn).astype(dtype, copy=False)


@function("Dropout", samples=[case(F(2, 3), np.array(0.5), static=(1,)), case(F(2, 3))], outputs=2)
def dropout(
    x: Value, ratio: Value | None = None, training_mode: Value | None = None, *, seed: int | None = None
) -> tuple[Value, Value]:
    """x with elements set to zero with the probability `ratio` (0.5), the others divided by 1 - ratio; and the mask.

    (Srivastava et al. 2014.) In eval mode, or when `training_mode` is given as false, it passes x unchanged. The mask
    follows from the session's seed; the attribute `seed` is accepted and has no effect.
    """
    share = 0.5 if ratio is None else float(ratio.known.reshape(()))
    if not 0.0 <= share <= 1.0:
        raise InvalidValue(f"ratio is {share}; it must lie in [0, 1]")
    builder = x.builder
    on = builder.training and (training_mode is None or bool(training_mode.known.reshape(())))
    if not on or share == 0.0:
        return x, O.Expand(builder.constant(np.array(True)), list(x.shape))
    mask = builder.uniform(x.shape, np.dtype(np.float32)) >= share
    return O.Where(mask, x * (1.0 / (1.0 - share) if share < 1.0 else 0.0), 0.0), mask
