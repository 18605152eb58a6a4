"""Draws the first values of parameters.

A value is a pure function of the session's seed and the parameter's name: the Philox counter-based generator (Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is keyed by both.
"""

import hashlib
import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.random import Generator, Philox

from backwire_server.engine.errors import GraphError
from backwire_server.sessions.training.versions import Array

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
TRUNCATED_AT = 2.0  # deviations from the mean
MAX_ORTHOGONAL = 2**36  # multiplications of the decomposition, which cannot be interrupted: some seconds


class Distribution(Enum):
    """How the elements are drawn; the formulas are those of the `draw` functions."""

    CONSTANT = auto()
    UNIFORM = auto()
    NORMAL = auto()
    GLOROT_UNIFORM = auto()
    GLOROT_NORMAL = auto()
    HE_UNIFORM = auto()
    HE_NORMAL = auto()
    ORTHOGONAL = auto()
    TRUNCATED_NORMAL = auto()


FANNED = {
    Distribution.GLOROT_UNIFORM,
    Distribution.GLOROT_NORMAL,
    Distribution.HE_UNIFORM,
    Distribution.HE_NORMAL,
    Distribution.ORTHOGONAL,
}


@dataclass(frozen=True, slots=True)
class Initializer:
    """A rule for the first value of a parameter. Raises GraphError, whose `field` is relative to the initializer.

    Attributes:
        dtype: float32 or float64.
        shape: The shape of the parameter.
        distribution: How elements are drawn.
        gain: What scaled distributions are multiplied by.
        unit_axis: The axis of `shape` that counts the units of the layer.
        location: The constant, lower bound or mean.
        scale: The upper bound or standard deviation.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    distribution: Distribution
    gain: float = 1.0
    unit_axis: int = 0
    location: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise GraphError(
                f"{self.dtype.name} cannot be drawn; use float32 or float64, or send the value", field="dtype"
            )
        largest = float(np.finfo(self.dtype).max) / 4
        for name in ("gain", "location", "scale"):
            if not abs(figure := getattr(self, name)) <= largest:
                raise GraphError(f"{name} is {figure:g}; give a finite number within {self.dtype.name}", field=name)
        if self.distribution in (Distribution.NORMAL, Distribution.TRUNCATED_NORMAL) and self.scale < 0:
            raise GraphError(f"the standard deviation is {self.scale:g}; give zero or more", field="scale")
        if self.distribution is Distribution.UNIFORM and self.location > self.scale:
            raise GraphError(
                f"the bounds {self.location:g} and {self.scale:g} are in the wrong order", field="location"
            )
        if self.distribution in FANNED and not 0 <= self.unit_axis < len(self.shape):
            raise GraphError(
                f"unit_axis {self.unit_axis} is no axis of shape {list(self.shape)}; name the axis of the units",
                field="unit_axis",
            )
        if self.distribution is Distribution.ORTHOGONAL:
            rows, columns = self._matrix
            if rows * columns * min(rows, columns) > MAX_ORTHOGONAL:
                raise GraphError(
                    f"an orthogonal matrix of {rows} x {columns} takes too long; use another distribution, or send the "
                    "value",
                    field="shape",
                )

    @property
    def nbytes(self) -> int:
        """The bytes of the value."""
        return math.prod(self.shape) * self.dtype.itemsize

    def draw(self, seed: int, name: str) -> Array:
        """Returns the value for the parameter of this name, a new array."""
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        generator = Generator(Philox(key=np.array([seed, key], np.uint64)))
        match self.distribution:
            case Distribution.CONSTANT:
                return np.full(self.shape, self.location, self.dtype)
            case Distribution.UNIFORM:
                return self._uniform(generator, self.location, self.scale)
            case Distribution.NORMAL:
                return self._normal(generator, self.location, self.scale)
            case Distribution.TRUNCATED_NORMAL:
                return self._truncated(generator, self.location, self.scale)
            case Distribution.ORTHOGONAL:
                return self._orthogonal(generator)
        fan_in, fan_out = self._fans
        glorot = self.distribution in (Distribution.GLOROT_UNIFORM, Distribution.GLOROT_NORMAL)
        deviation = self.gain * math.sqrt(2 / (fan_in + fan_out) if glorot else 1 / fan_in)
        if self.distribution in (Distribution.GLOROT_NORMAL, Distribution.HE_NORMAL):
            return self._normal(generator, 0.0, deviation)
        bound = math.sqrt(3) * deviation  # the variance of a uniform distribution is bound**2 / 3
        return self._uniform(generator, -bound, bound)

    @property
    def _fans(self) -> tuple[int, int]:
        units = self.shape[self.unit_axis]
        rest = math.prod(size for axis, size in enumerate(self.shape) if axis != self.unit_axis)
        field = math.prod(size for axis, size in enumerate(self.shape) if axis > 1 and axis != self.unit_axis)
        return max(rest, 1), max(units * field, 1)

    @property
    def _matrix(self) -> tuple[int, int]:
        units = self.shape[self.unit_axis]
        return units, math.prod(size for axis, size in enumerate(self.shape) if axis != self.unit_axis)

    def _uniform(self, generator: Generator, low: float, high: float) -> Array:
        values = generator.random(self.shape, dtype=self.dtype.type)
        values *= high - low
        values += low
        return values

    def _normal(self, generator: Generator, mean: float, deviation: float) -> Array:
        values = generator.standard_normal(self.shape, dtype=self.dtype.type)
        values *= deviation
        values += mean
        return values

    def _truncated(self, generator: Generator, mean: float, deviation: float) -> Array:
        """Draws again what lies further than TRUNCATED_AT deviations from the mean, until nothing does."""
        values = generator.standard_normal(self.shape, dtype=self.dtype.type)
        while (far := np.abs(values) > TRUNCATED_AT).any():
            values[far] = generator.standard_normal(np.count_nonzero(far), dtype=self.dtype.type)
        values *= deviation
        values += mean
        return values

    def _orthogonal(self, generator: Generator) -> Array:
        """Q of the QR decomposition of a normal matrix; with the signs of R's diagonal uniform (Mezzadri 2007)."""
        rows, columns = self._matrix
        if not rows * columns:
            return np.zeros(self.shape, self.dtype)
        q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diagonal(r) < 0, -self.gain, self.gain)
        matrix = q if rows >= columns else q.T
        others = [size for axis, size in enumerate(self.shape) if axis != self.unit_axis]
        placed = np.moveaxis(matrix.reshape(rows, *others), 0, self.unit_axis)
        return np.ascontiguousarray(placed, self.dtype)
