"""Losses: what training lowers. `reduction` says what becomes of the examples: their mean, their sum, or each."""

from typing import Literal

from backwire import _arrays, _functions_math, _shapes
from backwire._arrays import INT64
from backwire._errors import DTypeError, InvalidRequestError, ShapeError
from backwire._shapes import Shape
from backwire._value import AttributeValue, Operand, Value, apply, as_values, require_float

Reduction = Literal["mean", "sum", "none"]


def squared_error(prediction: Value, target: Operand, *, half: bool = False, reduction: Reduction = "mean") -> Value:
    """Returns (prediction - target)², or half of it as textbooks have it, reduced over all elements.

    With `half` the gradient is the bare difference. Both must have one shape, which catches the [batch, 1] against
    [batch] that broadcasting would turn into a matrix.

    Example:
        >>> z, t = bw.input("z", ("batch",)), bw.input("t", ("batch",))
        >>> loss = bw.squared_error(bw.sigmoid(z), t, half=True, reduction="sum")
    """
    difference = _difference("squared_error", prediction, target)
    squared = difference * difference
    return _reduced(squared * 0.5 if half else squared, reduction)


def absolute_error(prediction: Value, target: Operand, *, reduction: Reduction = "mean") -> Value:
    """Returns |prediction - target|, reduced over all elements. Both must have one shape."""
    return _reduced(abs(_difference("absolute_error", prediction, target)), reduction)


def softmax_cross_entropy(logits: Value, labels: Operand, *, reduction: Reduction = "mean") -> Value:
    """Returns -log softmax(logits) at the right class, computed without overflow.

    Args:
        logits: Scores before softmax: [batch, classes, ...], the classes along axis 1.
        labels: The number of the right class, of an integer type, [batch, ...]; or the probability of every class, of
            the dtype and shape of the logits.
        reduction: The mean over all labels, their sum, or `"none"` for each.
    """
    require_float("softmax_cross_entropy", logits)
    _check_reduction(reduction)
    if not isinstance(labels, Value):
        raise DTypeError("softmax_cross_entropy: labels are no Value; declare them with bw.input or bw.constant")
    if _arrays.is_float(labels.dtype):
        return _soft_cross_entropy(logits, labels, reduction)
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"softmax_cross_entropy: labels {labels!r} must be integers, or probabilities as floats")
    if labels.dtype.name not in ("int32", "int64"):
        labels = _functions_math.cast(labels, INT64)
    shape = _label_shape(logits, labels)
    attributes: dict[str, AttributeValue] = {"reduction": reduction}
    result: Shape = shape if reduction == "none" else ()
    return apply("SoftmaxCrossEntropyLoss", [logits, labels], logits.dtype, result, attributes=attributes)


def sigmoid_cross_entropy(logits: Value, targets: Operand, *, reduction: Reduction = "mean") -> Value:
    """Returns -t·log σ(x) - (1 - t)·log(1 - σ(x)) for logits x and targets t in [0, 1], computed without overflow.

    Both must have one shape. The formula is softplus(x) - x·t.
    """
    require_float("sigmoid_cross_entropy", logits)
    x, t = as_values("sigmoid_cross_entropy", logits, targets)
    _same_shape("sigmoid_cross_entropy", x, t)
    return _reduced(_functions_math.softplus(x) - x * t, reduction)


def _difference(what: str, prediction: Value, target: Operand) -> Value:
    a, b = as_values(what, prediction, target)
    require_float(what, a)
    _same_shape(what, a, b)
    return a - b


def _reduced(value: Value, reduction: Reduction) -> Value:
    _check_reduction(reduction)
    if reduction == "none":
        return value
    return _functions_math.mean(value) if reduction == "mean" else _functions_math.sum(value)


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise InvalidRequestError(f"reduction={reduction!r} is unknown; use 'mean', 'sum' or 'none'")


def _same_shape(what: str, a: Value, b: Value) -> None:
    if a.shape is None or b.shape is None or b.shape == ():
        return
    if len(a.shape) != len(b.shape) or not all(map(_shapes.may_equal, a.shape, b.shape)):
        raise ShapeError(f"{what}: {a!r} and {b!r} must have one shape; reshape one of them")


def _label_shape(logits: Value, labels: Value) -> Shape:
    if logits.shape is None or labels.shape is None:
        return labels.shape
    expected = logits.shape[:1] + logits.shape[2:]
    if (
        len(logits.shape) < 2
        or len(expected) != len(labels.shape)
        or not all(map(_shapes.may_equal, expected, labels.shape))
    ):
        raise ShapeError(
            f"softmax_cross_entropy: labels {labels!r} do not go with logits {logits!r}; logits are "
            "[batch, classes, ...] and labels [batch, ...]"
        )
    return tuple(map(_shapes.merged, expected, labels.shape))


def _soft_cross_entropy(logits: Value, labels: Value, reduction: Reduction) -> Value:
    logits, labels = as_values("softmax_cross_entropy", logits, labels)
    _same_shape("softmax_cross_entropy", logits, labels)
    each = -_functions_math.sum(labels * _functions_math.log_softmax(logits, axis=1), axis=1)
    return _reduced(each, reduction)
