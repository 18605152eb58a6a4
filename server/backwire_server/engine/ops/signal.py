"""The window functions of signal processing."""

from typing import Any

import numpy as np

from backwire_server.engine.ops.logic import dtype_named
from backwire_server.engine.registry import function
from backwire_server.engine.samples import case
from backwire_server.engine.values import Value

SAMPLES = [case(np.array(6)), case(np.array(5), periodic=0, output_datatype=11)]


def _cosines(size: Value, periodic: int, output_datatype: Any, *weights: float) -> Value:
    """Returns the sum of weight k times cos(2 pi k n / N), where N is the size if periodic, else one less."""
    count = size.builder.make(int(size.known.reshape(())))
    angle = 2.0 * np.pi * np.arange(count) / max(count if periodic else count - 1, 1)
    window = sum((weight * np.cos(k * angle) for k, weight in enumerate(weights)), np.zeros(count))
    return size.builder.constant(window.astype(dtype_named(output_datatype)))


@function("HannWindow", samples=SAMPLES)
def hann_window(size: Value, *, output_datatype: Any = 1, periodic: int = 1) -> Value:
    """0.5 - 0.5 cos(2 pi n / N) for n = 0, ..., size - 1, where N is the size, or one less if not `periodic`"""
    return _cosines(size, periodic, output_datatype, 0.5, -0.5)


@function("HammingWindow", samples=SAMPLES)
def hamming_window(size: Value, *, output_datatype: Any = 1, periodic: int = 1) -> Value:
    """25/46 - 21/46 cos(2 pi n / N) for n = 0, ..., size - 1, where N is the size, or one less if not `periodic`"""
    return _cosines(size, periodic, output_datatype, 25.0 / 46.0, -21.0 / 46.0)


@function("BlackmanWindow", samples=SAMPLES)
def blackman_window(size: Value, *, output_datatype: Any = 1, periodic: int = 1) -> Value:
    """0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N), where N is the size, or one less if not `periodic`"""
    return _cosines(size, periodic, output_datatype, 0.42, -0.5, 0.08)
