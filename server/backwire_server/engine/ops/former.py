"""Operators under former names, which ONNX has deprecated but models still use."""

import numpy as np

from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.values import O, Value


@function(
    "Scatter",
    samples=[case(F(3, 3), I([0, 2, 1], [2, 1, 0]), F(2, 3)), case(F(2, 4), I([3, 0], [0, -3]), F(2, 2), axis=1)],
)
def scatter(x: Value, indices: Value, updates: Value, *, axis: int = 0) -> Value:
    """ScatterElements without a reduction, under its name in operator sets 9 and 10."""
    return O.ScatterElements(x, indices, updates, axis=axis)


@function(
    "Upsample",
    samples=[
        case(F(1, 1, 2, 3), np.array([1.0, 1.0, 2.0, 1.5]), static=(1,)),
        case(F(1, 2, 3), np.array([1.0, 2.0, 2.0]), static=(1,), mode="linear"),
    ],
)
def upsample(x: Value, scales: Value, *, mode: str = "nearest") -> Value:
    """Resize as in operator set 9: element i comes from i / scale, rounded down in the mode nearest."""
    return O.Resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")
