"""Losses of sequences whose labels are not told step by step."""

import numpy as np

from backwire._arrays import INT64
from backwire._builder import _functions_math, _functions_shape, _shapes
from backwire._builder._layers import known_size
from backwire._builder._reduction import Reduction, check_reduction, reduced
from backwire._builder._value import (
    Value,
    apply,
    as_constant,
    gather,
    insert_axes,
    integers,
    require_float,
    require_value,
)
from backwire._errors import DTypeError, InvalidRequestError, ShapeError

_NEVER = -1e30  # the logarithm of a probability of 0, of which differences are still numbers


def ctc_loss(
    log_probabilities: Value,
    labels: Value,
    *,
    lengths: Value | None = None,
    label_lengths: Value | None = None,
    blank: int = 0,
    reduction: Reduction = "mean",
) -> Value:
    """Returns -log of the probability of the labels over all ways to spread them over the steps (Graves et al. 2006).

    A step says a class, or the blank; what is said twice in a row without a blank between counts once. The graph grows
    with the number of steps, by some ten nodes for each.

    Args:
        log_probabilities: [batch, time, classes] with known time and classes, as by `bw.log_softmax`; the blank is a
            class.
        labels: [batch, most labels] with a known number, of an integer type: classes other than the blank, and after
            the end any number, such as -1. One before the end that is no class is an error of Forward.
        lengths: Integers [batch]: how many steps of each sequence count; None for all. As of labels, one that is more
            than there are is an error of Forward.
        label_lengths: Integers [batch]: how many labels each sequence has; None for all.
        blank: The class of the blank.
        reduction: As in PyTorch, `"mean"` divides each loss by the number of its labels before it takes the mean;
            `"sum"` and `"none"` do not. A loss is infinite, and has no gradient, where the steps are too few.

    Example:
        >>> scores = bw.dense(bw.input("sound", ("batch", 20, 64)), 30, name="scores")
        >>> text, letters = bw.input("text", ("batch", 8), "int64"), bw.input("letters", ("batch",), "int64")
        >>> bw.ctc_loss(bw.log_softmax(scores), text, label_lengths=letters).shape
        ()
    """
    check_reduction(reduction)
    steps, most, classes = _sizes(log_probabilities, labels)
    if not 0 <= blank < classes:
        raise InvalidRequestError(
            f"ctc_loss: blank={blank} is no class of 0 to {classes - 1}; give the one of the blank"
        )
    ends = _column("ctc_loss/label_lengths", label_lengths, most)
    path = _with_blanks(_checked(labels, ends, most, classes, blank), most, blank)
    score = _scores(log_probabilities, path, blank, steps, _column("ctc_loss/lengths", lengths, steps))
    loss = _missed(score, most, ends)
    if reduction != "mean":
        return reduced(loss, reduction)
    if label_lengths is None:
        return reduced(loss / max(most, 1), reduction)
    return reduced(loss / _functions_math.cast(_functions_math.maximum(label_lengths, 1), loss.dtype), reduction)


def _sizes(log_probabilities: Value, labels: Value) -> tuple[int, int, int]:
    """Returns the numbers of steps, of labels at most, and of classes."""
    require_float("ctc_loss", log_probabilities)
    require_value("ctc_loss", labels)
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"ctc_loss: labels {labels!r} must be integers; convert them with bw.cast(value, 'int64')")
    if _shapes.rank_of("ctc_loss", log_probabilities.shape) != 3 or _shapes.rank_of("ctc_loss", labels.shape) != 2:
        raise ShapeError(
            f"ctc_loss: {log_probabilities!r} must be [batch, time, classes], and labels {labels!r} "
            "[batch, most labels]; reshape them"
        )
    steps, classes = (known_size("ctc_loss", log_probabilities, axis) for axis in (1, 2))
    return steps, known_size("ctc_loss", labels, 1), classes


def _column(name: str, lengths: Value | None, most: int) -> Value | None:
    """Returns lengths [batch] as int64 [batch, 1]; Forward refuses one that is not from 0 to the most."""
    return None if lengths is None else insert_axes(_listed(name, lengths, most + 1), (1,))


def _listed(name: str, x: Value, count: int) -> Value:
    """Returns integers as int64; Forward refuses one that is not from 0 to the count less one."""
    return gather(as_constant(np.arange(count)), x, 0, from_end=False, scope=name)


def _checked(labels: Value, ends: Value | None, most: int, classes: int, blank: int) -> Value:
    """Returns the labels as int64, blanks after the end; Forward refuses one that is no class."""
    given = _functions_math.cast(labels, INT64)
    if ends is not None:
        given = _functions_math.where(ends > np.arange(most), given, blank)
    return _listed("ctc_loss/labels", given, classes)


def _with_blanks(labels: Value, most: int, blank: int) -> Value:
    """Returns the places of a path, [batch, 2·most + 1]: a blank before, between and after the labels."""
    pairs = _functions_shape.stack([labels * 0 + blank, labels], axis=2)
    joined = _functions_shape.reshape(pairs, ((labels.shape or (None,))[0], 2 * most))
    return _functions_shape.pad(joined, [(0, 0), (0, 1)], blank)


def _scores(log_probabilities: Value, path: Value, blank: int, steps: int, ends: Value | None) -> Value:
    """Returns the logarithms [batch, places] of the probabilities to be at each place of the path after the last step.

    Each step stays, moves on by one, or skips a blank between labels that differ.
    """
    dtype = log_probabilities.dtype
    places = insert_axes(path, (1,)) + np.zeros((1, steps, 1), np.int64)
    said = apply("GatherElements", [log_probabilities, places], dtype, places.shape, attributes={"axis": 2})
    may_skip = _functions_math.not_equal(path, blank) & _functions_math.not_equal(path, _moved(path, 2, blank))
    score = _functions_math.where(as_constant(np.arange(known_size("ctc_loss", path, 1)) < 2), said[:, 0], _NEVER)
    for step in range(1, steps):
        skipped = _functions_math.where(may_skip, _moved(score, 2, _NEVER), _NEVER)
        ways = _functions_shape.stack([score, _moved(score, 1, _NEVER), skipped])
        later = _log_sum(ways, 0) + said[:, step]
        score = later if ends is None else _functions_math.where(ends > step, later, score)
    return score


def _missed(score: Value, most: int, ends: Value | None) -> Value:
    """Returns -log of the probability to be at the last label or the blank after it, [batch]."""
    last = 2 * (as_constant([[most]], INT64) if ends is None else ends)
    place = np.arange(2 * most + 1)
    arrived = _functions_math.equal(last, place) | _functions_math.equal(last - 1, place)
    loss = -_log_sum(_functions_math.where(arrived, score, _NEVER), 1)
    return _functions_math.where(loss > -_NEVER / 2, np.inf, loss)


def _moved(x: Value, by: int, before: float) -> Value:
    return _functions_shape.pad(x, [(0, 0), (by, -by)], before)


def _log_sum(x: Value, axis: int) -> Value:
    shape = _shapes.reduced(x.shape or (), [axis], keepdims=False)
    return apply("ReduceLogSumExp", [x, integers([axis])], x.dtype, shape, attributes={"keepdims": 0})
