"""Samples that operators are tested on, which are written down where an operator is."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from backwire_server.engine.graph import Array, Attribute


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs and attributes on which an operator is tested; inputs at `static` places are constants of the graph."""

    inputs: tuple[Array | None, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    n_outputs: int = 1
    static: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Draw:
    """Floats to be drawn once it is known which operator's sample they are of."""

    shape: tuple[int, ...]
    low: float
    high: float


def drawn(sample: Sample, name: str, index: int) -> Sample:
    """Returns the sample with its floats drawn; they depend on nothing but the operator's name and the two places."""
    inputs: list[Any] = list(sample.inputs)
    for place, each in enumerate(inputs):
        if isinstance(each, _Draw):
            draws = np.random.default_rng([zlib.crc32(name.encode()), index, place])
            inputs[place] = draws.uniform(each.low, each.high, each.shape)
    return replace(sample, inputs=tuple(inputs))


# Samples read better with short names: F(2, 3) is a float array of that shape.
def F(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:  # noqa: N802
    """Returns a place for float64 samples, uniform between the bounds; tests cast them to the dtype under test."""
    return _Draw(shape, low, high)


def I(*items: Any) -> Array:  # noqa: E743, N802
    """Returns an int64 array of the items."""
    return np.array(items, np.int64)


def case(*inputs: Array | None, n_outputs: int = 1, static: tuple[int, ...] = (), **attributes: Attribute) -> Sample:
    """Returns a sample."""
    return Sample(inputs, attributes, n_outputs, static)
