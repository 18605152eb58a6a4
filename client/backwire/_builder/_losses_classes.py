"""Losses of classes and of distributions over them; see `_losses` for those of numbers."""

from backwire import _arrays
from backwire._arrays import INT64
from backwire._builder import _activations, _functions_math, _functions_reduction, _functions_shape, _shapes
from backwire._builder._layers import known_size
from backwire._builder._node import AttributeValue
from backwire._builder._reduction import Reduction, check_reduction, paired, reduced, same_shape
from backwire._builder._shapes import Shape
from backwire._builder._value import Operand, Value, apply, as_values, gather, require_float, require_value
from backwire._errors import DTypeError, InvalidRequestError, ShapeError


def softmax_cross_entropy(
    logits: Value,
    labels: Operand,
    *,
    class_weights: Operand | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Value:
    """Returns -log softmax(logits) at the right class, computed without overflow.

    Args:
        logits: Scores before softmax: [batch, classes, ...], the classes along axis 1.
        labels: The number of the right class, from 0 on, of an integer type, [batch, ...]; a number that is no class is
            an error. Or the probability of every class, of the dtype and shape of the logits.
        class_weights: [classes], what the loss of each class counts; None for 1. The mean of losses with class numbers
            is then divided by the sum of the weights of the labels.
        label_smoothing: What share of the right class's probability is spread evenly over all classes, 0 to 1 (Szegedy
            et al. 2016).
        ignore_index: The number in `labels` that counts nothing; None for none. The mean is over the others.
        reduction: The mean over all labels, their sum, or `"none"` for each.

    Example:
        >>> logits = bw.input("logits", ("batch", 10))
        >>> labels = bw.input("labels", ("batch",), dtype="int64")
        >>> bw.softmax_cross_entropy(logits, labels, label_smoothing=0.1, ignore_index=-1).shape
        ()
    """
    what = "softmax_cross_entropy"
    require_float(what, logits)
    check_reduction(reduction)
    if not 0 <= label_smoothing <= 1:
        raise InvalidRequestError(f"{what}: label_smoothing={label_smoothing} is no share; use 0 to 1")
    weights = None if class_weights is None else _class_weights(what, logits, class_weights)
    labels = _labels(what, labels, ignore_index)
    if _arrays.is_float(labels.dtype):
        return _soft_cross_entropy(logits, labels, weights, label_smoothing, reduction)
    shape = label_shape(what, logits, labels)
    if label_smoothing:
        return _smoothed(logits, labels, shape, weights, label_smoothing, ignore_index, reduction)
    ignored = {} if ignore_index is None else {"ignore_index": ignore_index}
    attributes: dict[str, AttributeValue] = {"reduction": reduction, **ignored}
    result: Shape = shape if reduction == "none" else ()
    inputs = [logits, labels, *([] if weights is None else [weights])]
    return apply("SoftmaxCrossEntropyLoss", inputs, logits.dtype, result, attributes=attributes)


def sigmoid_cross_entropy(
    logits: Value, targets: Operand, *, positive_weight: Operand | None = None, reduction: Reduction = "mean"
) -> Value:
    """Returns -w·t·log σ(x) - (1 - t)·log(1 - σ(x)) for logits x and targets t in [0, 1], computed without overflow.

    Both must have one shape. w is `positive_weight`, by default 1: a number, or what broadcasts to the logits, such as
    [classes] for [batch, classes]; above 1 it favours recall. The formula is (1 - t)·x + (1 + (w - 1)·t)·softplus(-x).

    Example:
        >>> x, t = bw.input("x", ("batch", 3)), bw.input("t", ("batch", 3))
        >>> loss = bw.sigmoid_cross_entropy(x, t, positive_weight=[1, 5, 20])
    """
    x, t = paired("sigmoid_cross_entropy", logits, targets)
    if positive_weight is None:
        return reduced(_activations.softplus(x) - x * t, reduction)
    _, w = as_values("sigmoid_cross_entropy", x, positive_weight)
    return reduced((1 - t) * x + (1 + (w - 1) * t) * _activations.softplus(-x), reduction)


def hinge_loss(scores: Value, targets: Operand, *, margin: float = 1.0, reduction: Reduction = "mean") -> Value:
    """Returns max(0, margin - targets·scores), reduced over all elements, targets being -1 or 1 (Cortes, Vapnik 1995).

    Example:
        >>> scores, t = bw.input("scores", ("batch",)), bw.input("t", ("batch",))
        >>> loss = bw.hinge_loss(scores, t)
    """
    x, t = paired("hinge_loss", scores, targets)
    return reduced(_activations.relu(margin - t * x), reduction)


def multiclass_hinge_loss(scores: Value, labels: Value, *, margin: float = 1.0, reduction: Reduction = "mean") -> Value:
    """Returns the sum of max(0, margin + score - score of the right class) over the wrong classes, over their number.

    Args:
        scores: [batch, classes].
        labels: The number of the right class, of an integer type, [batch].
        margin: By how much the right class shall win.
        reduction: The mean over the batch, the sum, or `"none"` for each. The number of classes, all of them, divides
            each, as in PyTorch (Weston and Watkins 1999).

    Example:
        >>> scores = bw.input("scores", ("batch", 10))
        >>> labels = bw.input("labels", ("batch",), dtype="int64")
        >>> loss = bw.multiclass_hinge_loss(scores, labels)
    """
    what = "multiclass_hinge_loss"
    require_float(what, scores)
    if scores.shape is not None and len(scores.shape) != 2:
        raise ShapeError(f"{what}: {scores!r} must be [batch, classes]; reshape it")
    each = label_shape(what, scores, labels)
    classes = known_size(what, scores, 1)
    labels = _labels(what, labels, None)
    right = _functions_shape.one_hot(labels, classes, dtype=scores.dtype.name)
    # unlike OneHot, the log likelihood refuses a label that is no class
    missed = apply("NegativeLogLikelihoodLoss", [scores, labels], scores.dtype, each, attributes={"reduction": "none"})
    score = _functions_shape.unsqueeze(-missed, 1)
    beyond = _activations.relu(scores - score + margin) * (1 - right)
    return reduced(_functions_reduction.sum(beyond, axis=1) / classes, reduction)


def kl_divergence(
    log_prediction: Value, target: Operand, *, log_target: bool = False, axis: int = -1, reduction: Reduction = "mean"
) -> Value:
    """Returns the sum of target·(log target - log_prediction) along the axis of the classes (Kullback, Leibler 1951).

    Args:
        log_prediction: The logarithms of the predicted probabilities, as by `bw.log_softmax`.
        target: The true probabilities, of the same shape; 0·log 0 is 0.
        log_target: Whether `target` holds logarithms, too.
        axis: The axis of the classes.
        reduction: The mean over all distributions (PyTorch's "batchmean" for a matrix), their sum, or `"none"`.

    Example:
        >>> student, teacher = bw.input("student", ("batch", 10)), bw.input("teacher", ("batch", 10))
        >>> loss = bw.kl_divergence(bw.log_softmax(student), bw.softmax(teacher))
    """
    q, p = paired("kl_divergence", log_prediction, target)
    if log_target:
        each = _functions_math.exp(p) * (p - q)
    else:
        logarithm = _functions_math.log(_functions_math.where(p > 0, p, 1))
        each = p * (logarithm - q)
    return reduced(_functions_reduction.sum(each, axis=axis), reduction)


def label_shape(what: str, logits: Value, labels: Value) -> Shape:
    """Returns the shape of labels for logits [batch, classes, ...]; raises ShapeError when they do not go together."""
    require_value(what, logits)
    require_value(what, labels)
    if logits.shape is None or labels.shape is None:
        return labels.shape
    expected = logits.shape[:1] + logits.shape[2:]
    if (
        len(logits.shape) < 2
        or len(expected) != len(labels.shape)
        or not all(map(_shapes.may_equal, expected, labels.shape))
    ):
        raise ShapeError(
            f"{what}: labels {labels!r} do not go with logits {logits!r}; logits are [batch, classes, ...] and labels "
            "[batch, ...]"
        )
    return tuple(map(_shapes.merged, expected, labels.shape))


def _labels(what: str, labels: Operand, ignored: int | None) -> Value:
    """Returns the labels as int32, int64 or floating-point; raises DTypeError for others."""
    if not isinstance(labels, Value):
        raise DTypeError(f"{what}: labels are no Value; declare them with bw.input or bw.constant")
    if _arrays.is_float(labels.dtype):
        if ignored is not None:
            raise InvalidRequestError(f"{what}: probabilities have no number to ignore; leave out ignore_index")
        return labels
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"{what}: labels {labels!r} must be integers, or probabilities as floats")
    return labels if labels.dtype.name in ("int32", "int64") else _functions_math.cast(labels, INT64)


def _class_weights(what: str, logits: Value, class_weights: Operand) -> Value:
    _, weights = as_values(what, logits, class_weights)
    classes = None if logits.shape is None or len(logits.shape) < 2 else logits.shape[1]
    if weights.shape is not None and (len(weights.shape) != 1 or not _shapes.may_equal(weights.shape[0], classes)):
        raise ShapeError(f"{what}: class_weights {weights!r} must be one number for each of the {classes} classes")
    return weights


def _soft_cross_entropy(
    logits: Value, labels: Value, weights: Value | None, smoothing: float, reduction: Reduction
) -> Value:
    logits, labels = as_values("softmax_cross_entropy", logits, labels)
    same_shape("softmax_cross_entropy", logits, labels)
    if smoothing:
        labels = labels * (1 - smoothing) + smoothing / known_size("label_smoothing", logits, 1)
    if weights is not None:
        labels = labels * _along_classes(weights, logits)
    each = -_functions_reduction.sum(labels * _activations.log_softmax(logits, axis=1), axis=1)
    return reduced(each, reduction)


def _smoothed(
    logits: Value,
    labels: Value,
    shape: Shape,
    weights: Value | None,
    smoothing: float,
    ignored: int | None,
    reduction: Reduction,
) -> Value:
    """The share 1 - smoothing of the loss at the label, and the rest of the mean of the losses at all classes."""
    log_p = _activations.log_softmax(logits, axis=1)
    counted = None if ignored is None else _functions_math.not_equal(labels, ignored)
    if counted is not None:
        labels = _functions_math.where(counted, labels, 0)
    inputs = [log_p, labels, *([] if weights is None else [weights])]
    at_label = apply("NegativeLogLikelihoodLoss", inputs, logits.dtype, shape, attributes={"reduction": "none"})
    at_all = -_functions_reduction.sum(log_p if weights is None else log_p * _along_classes(weights, logits), axis=1)
    each = at_label * (1 - smoothing) + at_all * (smoothing / known_size("label_smoothing", logits, 1))
    counts = None if weights is None else gather(weights, labels, 0)
    if counted is not None:
        each = _functions_math.where(counted, each, 0)
        ones = _functions_math.cast(counted, logits.dtype)
        counts = ones if counts is None else counts * ones
    if reduction != "mean" or counts is None:
        return reduced(each, reduction)
    return _functions_reduction.sum(each) / _functions_reduction.sum(counts)


def _along_classes(weights: Value, logits: Value) -> Value:
    """Returns weights [classes] in a shape that broadcasts to the logits."""
    rank = _shapes.rank_of("softmax_cross_entropy", logits.shape)
    return _functions_shape.reshape(weights, (-1, *[1] * (rank - 2)))
