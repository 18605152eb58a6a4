"""How parameters get their first values: rules by which the server draws them from the session's seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from backwire._arrays import DType, is_float
from backwire._errors import DTypeError, InvalidRequestError
from backwire_api import tensors
from backwire_api.v1 import graph_pb2


@dataclass(frozen=True, slots=True)
class Initializer:
    """The base of all rules; use one of its subclasses.

    Example:
        >>> x = bw.input("x", ("batch", 64))
        >>> y = bw.dense(x, 10, name="top", initializer=bw.HeNormal(), bias_initializer=bw.Constant(0.1))
    """

    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_UNSPECIFIED

    def __post_init__(self) -> None:
        for name, figure in self._figures().items():
            if not math.isfinite(figure):
                raise InvalidRequestError(f"{self} has {name} = {figure}; give a finite number")

    def _figures(self) -> dict[str, float]:
        return {}

    def to_proto(self, dtype: DType, shape: Sequence[int], unit_axis: int) -> graph_pb2.Initializer:
        """Returns the message for a parameter; raises DTypeError unless it is float32 or float64."""
        if not is_float(dtype) or dtype.itemsize < 4:
            raise DTypeError(f"the server draws float32 and float64, not {dtype}; give the parameter's value itself")
        return graph_pb2.Initializer(
            dtype=tensors.data_type_of(dtype),
            shape=shape,
            distribution=graph_pb2.Initializer.Distribution.ValueType(self._distribution),
            unit_axis=unit_axis % max(len(shape), 1),
            **self._figures(),
        )


@dataclass(frozen=True, slots=True)
class Constant(Initializer):
    """Every element is `value`.

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.Constant(0.5))
    """

    value: float
    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_CONSTANT

    def _figures(self) -> dict[str, float]:
        return {"location": self.value}


@dataclass(frozen=True, slots=True)
class Zeros(Initializer):
    """Every element is 0.

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.Zeros())
    """

    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_CONSTANT

    def _figures(self) -> dict[str, float]:
        return {"location": 0.0}


@dataclass(frozen=True, slots=True)
class Ones(Initializer):
    """Every element is 1.

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.Ones())
    """

    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_CONSTANT

    def _figures(self) -> dict[str, float]:
        return {"location": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Initializer):
    """Uniform between `low` and `high`.

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.Uniform(low=-0.1, high=0.1))
    """

    low: float = -0.05
    high: float = 0.05
    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_UNIFORM

    def _figures(self) -> dict[str, float]:
        return {"location": self.low, "scale": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal(Initializer):
    """Normal with this mean and standard deviation.

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.Normal(standard_deviation=0.02))
    """

    mean: float = 0.0
    standard_deviation: float = 0.05
    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_NORMAL

    def _figures(self) -> dict[str, float]:
        return {"location": self.mean, "scale": self.standard_deviation}


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedNormal(Initializer):
    """Normal with this mean and standard deviation, drawn again beyond two deviations from the mean.

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.TruncatedNormal(standard_deviation=0.02))
    """

    mean: float = 0.0
    standard_deviation: float = 0.05
    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_TRUNCATED_NORMAL

    def _figures(self) -> dict[str, float]:
        return {"location": self.mean, "scale": self.standard_deviation}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scaled(Initializer):
    """A rule whose figures are scaled to the parameter's fans, times `gain`."""

    gain: float = 1.0

    def _figures(self) -> dict[str, float]:
        return {"gain": self.gain}


@dataclass(frozen=True, slots=True, kw_only=True)
class GlorotUniform(_Scaled):
    """Uniform within ±gain·√(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.GlorotUniform())
    """

    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_GLOROT_UNIFORM


@dataclass(frozen=True, slots=True, kw_only=True)
class GlorotNormal(_Scaled):
    """Normal with standard deviation gain·√(2 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.GlorotNormal())
    """

    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_GLOROT_NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class HeUniform(_Scaled):
    """Uniform within ±gain·√(3 / fan_in); the default gain of √2 suits relu (He et al. 2015).

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.HeUniform())
    """

    gain: float = math.sqrt(2.0)
    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_HE_UNIFORM


@dataclass(frozen=True, slots=True, kw_only=True)
class HeNormal(_Scaled):
    """Normal with standard deviation gain/√fan_in; the default gain of √2 suits relu (He et al. 2015).

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.HeNormal())
    """

    gain: float = math.sqrt(2.0)
    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_HE_NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class LeCunUniform(_Scaled):
    """Uniform within ±gain·√(3 / fan_in); suits selu and tanh (LeCun et al. 1998).

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.LeCunUniform())
    """

    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_HE_UNIFORM


@dataclass(frozen=True, slots=True, kw_only=True)
class LeCunNormal(_Scaled):
    """Normal with standard deviation gain/√fan_in; suits selu and tanh (LeCun et al. 1998).

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.LeCunNormal())
    """

    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_HE_NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthogonal(_Scaled):
    """A matrix with orthonormal rows or columns, times gain (Saxe et al. 2014).

    Example:
        >>> w = bw.parameter("w", (64, 10), initializer=bw.Orthogonal())
    """

    _distribution: ClassVar[int] = graph_pb2.Initializer.DISTRIBUTION_ORTHOGONAL
