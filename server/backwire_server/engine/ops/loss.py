"""Losses."""

import numpy as np

from backwire_server.engine.dims import concrete
from backwire_server.engine.errors import InvalidAttribute, InvalidValue, ShapeMismatch
from backwire_server.engine.graph import Array
from backwire_server.engine.registry import function, op, stored
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import require_equal, require_rank, same
from backwire_server.engine.values import O, Value

REDUCTIONS = ("mean", "sum", "none")
LABELS = I(0, 2, 1)
SPATIAL = I([[0, 1], [2, 2]], [[1, 1], [0, 2]])
SAMPLES = [
    case(F(3, 4), LABELS),
    case(F(3, 4), LABELS, F(4, low=0.5), reduction="sum"),
    case(F(3, 4), LABELS, F(4, low=0.5)),
    case(F(2, 3, 2, 2), SPATIAL, reduction="none"),
    case(F(3, 4), LABELS, ignore_index=2),
]


def no_class(label: object, classes: int) -> str:
    """Returns what is wrong with a label, and the remedy."""
    return f"label {label} is no class of 0 to {classes - 1}; correct it, or leave it out by ignore_index"


@op("ClassLabels", shape=same("i"), samples=[case(LABELS, classes=3)], elementwise=True, internal=True)
def class_labels(labels: Array, *, classes: int, out: Array | None = None) -> Array:
    """The labels, all of which must be classes: one below 0 would count from the last where elements are picked."""
    unsigned = labels.view(f"u{labels.itemsize}")  # so that negative ones are the largest
    if labels.size and unsigned.max() >= classes:
        raise InvalidValue(no_class(labels[unsigned >= classes].flat[0], classes))
    return stored(labels, out)


@function("NegativeLogLikelihoodLoss", samples=SAMPLES)
def negative_log_likelihood(
    x: Value, target: Value, weight: Value | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Value:
    """-x[n, target[n]], times the weight of the class; the mean is over the sum of the weights.

    x is [N, C] or [N, C, d1, ...], the target [N] or [N, d1, ...], each of 0 to C - 1; where it is `ignore_index`
    nothing counts.
    """
    if reduction not in REDUCTIONS:
        raise InvalidAttribute(f"reduction is {reduction!r}; use one of {', '.join(REDUCTIONS)}")
    require_rank(x, 2)
    if target.rank != x.rank - 1:
        raise ShapeMismatch(f"the target has rank {target.rank}; it must have that of the scores less one")
    for a, b in zip((x.shape[0], *x.shape[2:]), target.shape, strict=True):
        require_equal(a, b, "sizes of scores and target")
    weights, (classes,) = weight, concrete(x.shape[1:2])  # of the batch nothing need be known
    if ignore_index is not None:
        counted = O.Not(O.Equal(target, np.asarray(ignore_index, target.dtype)))
        target = O.ClassLabels(O.Where(counted, target, np.asarray(0, target.dtype)), classes=classes)
        ones = O.Cast(counted, to=x.dtype.name)
        weights = ones if weight is None else O.Gather(weight, target) * ones
    else:
        target = O.ClassLabels(target, classes=classes)
        weights = None if weight is None else O.Gather(weight, target)
    loss = -O.Squeeze(O.GatherElements(x, O.Unsqueeze(target, [1]), axis=1), [1])
    if weights is not None:
        loss = O.Where(O.Equal(weights, 0.0), 0.0, loss * weights)
    if reduction == "none":
        return loss
    if reduction == "sum" or weights is None:
        return O.ReduceSum(loss, keepdims=0) if reduction == "sum" else O.ReduceMean(loss, keepdims=0)
    return O.ReduceSum(loss, keepdims=0) / O.ReduceSum(weights, keepdims=0)


@function("SoftmaxCrossEntropyLoss", samples=SAMPLES, outputs=2)
def softmax_cross_entropy(
    scores: Value,
    labels: Value,
    weights: Value | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> tuple[Value, Value]:
    """NegativeLogLikelihoodLoss of LogSoftmax(scores) over the class axis, 1; the second output is that logarithm."""
    log_probability = O.LogSoftmax(scores, axis=1)
    options = {} if ignore_index is None else {"ignore_index": ignore_index}
    loss = O.NegativeLogLikelihoodLoss(log_probability, labels, weights, reduction=reduction, **options)
    return loss, log_probability
