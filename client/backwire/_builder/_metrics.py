"""Metrics: figures of how good a model is, computed in its graph for each example; `fit` takes their means."""

import numpy as np

from backwire._arrays import FLOAT32, INT64
from backwire._builder import _functions_math, _functions_reduction, _functions_shape
from backwire._builder._op import op
from backwire._builder._value import Value, require_value
from backwire._errors import DTypeError, ShapeError


def accuracy(logits: Value, labels: Value) -> Value:
    """Returns 1 for each example whose greatest logit is that of its label, and 0 for others: float32, as `labels`.

    Args:
        logits: [batch, classes, ...].
        labels: Integers [batch, ...], which name classes.

    Raises:
        DTypeError: The labels are no integers.
        ShapeError: There is not one label for each row of logits.

    Example:
        >>> x, labels = bw.input("x", ("batch", 2)), bw.input("labels", ("batch",), dtype="int64")
        >>> logits = bw.dense(x, 2, name="top")
        >>> right = bw.accuracy(logits, labels)
        >>> graph = bw.graph(loss=bw.softmax_cross_entropy(logits, labels), outputs={"accuracy": right})
    """
    _check("accuracy", logits, labels)
    (guess,) = op("ArgMax", logits, attributes={"axis": 1, "keepdims": 0}, dtype=INT64, shape=labels.shape)
    return _functions_math.cast(_functions_math.equal(guess, _functions_math.cast(labels, INT64)), FLOAT32)


def top_k_accuracy(logits: Value, labels: Value, k: int = 5) -> Value:
    """Returns 1 for each example whose label is among its `k` greatest logits, and 0 for others: float32 [batch].

    Args:
        logits: [batch, classes], with at least `k` classes.
        labels: Integers [batch], which name classes.
        k: How many guesses count, 1 or more.

    Raises:
        DTypeError: The labels are no integers.
        ShapeError: There is not one label for each row of logits, or there are fewer classes than `k`.

    Example:
        >>> logits, labels = bw.input("logits", ("batch", 10)), bw.input("labels", ("batch",), dtype="int64")
        >>> bw.top_k_accuracy(logits, labels, k=3)
        <ReduceMax: float32[batch]>
    """
    _check("top_k_accuracy", logits, labels)
    classes = None if logits.shape is None else logits.shape[1]
    if k < 1 or (isinstance(classes, int) and k > classes):
        raise ShapeError(f"top_k_accuracy: {k} guesses among the classes of {logits!r}; give k between 1 and those")
    dims = None if logits.shape is None else (logits.shape[0], k)
    _, guesses = op("TopK", logits, np.array([k]), attributes={"axis": 1}, dtype=INT64, shape=dims, outputs=2)
    column = _functions_math.cast(labels, INT64)
    right = _functions_math.equal(guesses, _functions_shape.unsqueeze(column, 1))
    return _functions_reduction.max(_functions_math.cast(right, FLOAT32), axis=1)


def _check(what: str, logits: Value, labels: Value) -> None:
    require_value(what, logits)
    require_value(what, labels)
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"{what}: {labels!r} is not of an integer type; convert it with bw.cast(value, 'int64')")
    if logits.shape is None or labels.shape is None:
        return
    if len(logits.shape) != len(labels.shape) + 1:
        raise ShapeError(f"{what}: {logits!r} needs one label for each row of logits, not {labels!r}; reshape one")
