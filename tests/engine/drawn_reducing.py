"""Draws calls of operators that combine elements along axes: products, reductions, norms and losses."""

from typing import Any

import numpy as np
from tests.engine.drawing import Draw, Strategy, call, ints

from backwire_server.engine.samples import Sample


def matmul(d: Draw) -> Sample:
    inner, batch = d.number(1, 3), d.shape(0, 2, 2)
    left: Any = (d.number(1, 3), inner) if d.flag() else (inner,)
    right: Any = (inner, d.number(1, 3)) if d.flag() else (inner,)
    if len(left) > 1 and d.flag():
        left = (*batch, *left)
    if len(right) > 1 and d.flag():
        right = (*(d.pick(size, 1) for size in batch), *right)
    return call(d.floats(*left), d.floats(*right))


def gemm(d: Draw) -> Sample:
    rows, inner, columns, a, b = d.number(1, 3), d.number(1, 3), d.number(1, 3), d.flag(), d.flag()
    bias = d.pick(None, (), (columns,), (rows, 1), (rows, columns))
    return call(
        d.floats(*((inner, rows) if a else (rows, inner))),
        d.floats(*((columns, inner) if b else (inner, columns))),
        None if bias is None else d.floats(*bias),
        transA=a,
        transB=b,
        alpha=d.pick(None, 0.5),
        beta=d.pick(None, -1.5),
    )


def einsum(d: Draw) -> Sample:
    """Up to three terms over the letters i, j, k, one of which may repeat, with any result and maybe an ellipsis."""
    sizes = {letter: d.number(1, 3) for letter in "ijk"}
    dots, extra = d.pick("", "..."), d.shape(1, 1)
    terms = ["".join(d.pick(*sizes) for _ in range(d.number(1, 3))) for _ in range(d.number(1, 3))]
    named = sorted(set("".join(terms)))
    result = "".join(named[place] for place in d.order(len(named))[: d.number(0, len(named))])
    shapes = [(*(extra if dots else ()), *(sizes[letter] for letter in term)) for term in terms]
    equation = ",".join(dots + term for term in terms) + d.pick("", f"->{dots}{result}")
    return call(*(d.floats(*shape) for shape in shapes), equation=equation)


def det(d: Draw) -> Sample:
    size = d.number(1, 3)
    return call(d.floats(*d.shape(0, 2, 2), size, size))


def reduction(low: float = -2.0) -> Strategy:
    def strategy(d: Draw) -> Sample:
        shape = d.shape()
        axes = d.maybe(lambda: ints(*d.axes(len(shape), 0)))
        return call(d.floats(*shape, low=low), axes, keepdims=d.flag(), noop_with_empty_axes=d.flag())

    return strategy


def cumulative(d: Draw) -> Sample:
    shape = d.shape(1)
    return call(d.floats(*shape), np.array(d.axis(len(shape))), exclusive=d.flag(), reverse=d.flag())


def along(**choices: tuple[Any, ...]) -> Strategy:
    def strategy(d: Draw) -> Sample:
        shape = d.shape(1)
        attributes = {name: d.pick(None, *values) for name, values in choices.items()}
        return call(d.floats(*shape), axis=d.axis(len(shape)), **attributes)

    return strategy


def loss(d: Draw) -> Sample:
    classes, shape = d.number(1, 4), d.shape(1, 3)
    labels = abs(d.below(classes, *shape)) % classes
    ignored = d.pick(None, 0, -100)
    reduction = d.pick("mean", "sum", "none")
    if reduction == "mean" and ignored is not None and (labels == ignored).all():
        ignored = None  # a mean over nothing
    weights = d.maybe(lambda: d.floats(classes, low=0.3))
    scores = d.floats(shape[0], classes, *shape[1:])
    return call(scores, labels, weights, ignore_index=ignored, reduction=reduction)


def batch_norm(d: Draw) -> Sample:
    channels, training = d.number(1, 3), d.flag()
    x = d.floats(d.number(2, 3), channels, *d.shape(0, 2))
    statistics = (d.floats(channels), d.floats(channels), d.floats(channels), d.floats(channels, low=0.4))
    settings = {"epsilon": d.pick(None, 0.1), "momentum": d.pick(None, 0.4), "training_mode": training}
    return call(x, *statistics, outputs=d.pick(1, 3) if training else 1, **settings)


def instance_norm(d: Draw) -> Sample:
    channels = d.number(1, 3)
    x = d.floats(d.number(1, 2), channels, d.number(2, 3), *d.shape(0, 1))
    return call(x, d.floats(channels), d.floats(channels), epsilon=d.pick(0.01, 0.1))


def group_norm(d: Draw) -> Sample:
    groups, each = d.number(1, 2), d.number(1, 3)
    x = d.floats(d.number(1, 2), groups * each, d.number(2, 3), *d.shape(0, 1))
    scale, bias = d.floats(groups * each), d.floats(groups * each)
    return call(x, scale, bias, num_groups=groups, epsilon=d.pick(0.01, 0.1))


def layer_norm(d: Draw) -> Sample:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    scale = d.floats(*shape[axis:])
    bias = d.maybe(lambda: d.floats(*shape[axis:]))
    return call(d.floats(*shape), scale, bias, axis=axis, epsilon=d.pick(0.01, 0.1), outputs=d.number(1, 3))


def rms_norm(d: Draw) -> Sample:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    return call(d.floats(*shape), d.floats(*shape[axis:]), axis=axis, epsilon=d.pick(0.01, 0.1))


def mean_variance(d: Draw) -> Sample:
    shape = (d.number(3, 4), *d.shape(0, 2))  # of two elements the gradient is 0, and its own slope has no bound
    return call(d.floats(*shape), axes=(0, *range(1, d.number(1, len(shape)))))


def local_response(d: Draw) -> Sample:
    settings = {"alpha": d.pick(None, 0.5), "beta": d.pick(None, 0.5), "bias": d.pick(None, 2.0)}
    return call(d.floats(d.number(1, 2), d.number(1, 4), *d.shape(1, 2, 2)), size=d.number(1, 4), **settings)


STRATEGIES: dict[str, Strategy] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    "Det": det,
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"), reduction()),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"), reduction()),
    "ReduceLogSum": reduction(low=0.3),
    **dict.fromkeys(("CumSum", "CumProd"), cumulative),
    **dict.fromkeys(("Softmax", "LogSoftmax"), along()),
    "LpNormalization": along(p=(1, 2)),
    "NegativeLogLikelihoodLoss": loss,
    "SoftmaxCrossEntropyLoss": loss,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "MeanVarianceNormalization": mean_variance,
    "LRN": local_response,
}
