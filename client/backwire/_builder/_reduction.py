"""What losses share: what becomes of the examples, and that predictions and targets have one shape."""

from typing import Literal

from backwire._builder import _functions_reduction, _shapes
from backwire._builder._value import Operand, Value, as_values, require_float
from backwire._errors import InvalidRequestError, ShapeError

Reduction = Literal["mean", "sum", "none"]


def reduced(value: Value, reduction: Reduction) -> Value:
    """Returns the mean, the sum, or the value as it is; raises InvalidRequestError for another reduction."""
    check_reduction(reduction)
    if reduction == "none":
        return value
    return _functions_reduction.mean(value) if reduction == "mean" else _functions_reduction.sum(value)


def check_reduction(reduction: str) -> None:
    """Raises InvalidRequestError unless the reduction is one of three."""
    if reduction not in ("mean", "sum", "none"):
        raise InvalidRequestError(f"reduction={reduction!r} is unknown; use 'mean', 'sum' or 'none'")


def same_shape(what: str, a: Value, b: Value) -> None:
    """Raises ShapeError unless both can have one shape, or b is a number."""
    if a.shape is None or b.shape is None or b.shape == ():
        return
    if len(a.shape) != len(b.shape) or not all(map(_shapes.may_equal, a.shape, b.shape)):
        raise ShapeError(f"{what}: {a!r} and {b!r} must have one shape; reshape one of them")


def paired(what: str, prediction: Value, target: Operand) -> tuple[Value, Value]:
    """Returns both as floating-point values of one dtype and one shape; raises when they cannot be."""
    a, b = as_values(what, prediction, target)
    require_float(what, a)
    same_shape(what, a, b)
    return a, b


def positive(what: str, name: str, figure: float) -> float:
    """Returns the figure; raises InvalidRequestError unless it is above 0."""
    if not figure > 0:
        raise InvalidRequestError(f"{what}: {name}={figure} must be above 0; choose another", field=name)
    return figure
