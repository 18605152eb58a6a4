"""Losses of vectors that stand for things: what is alike shall be near, and what is not shall be far."""

from backwire._builder import _activations, _functions_math, _functions_reduction
from backwire._builder._reduction import Reduction, paired, positive, reduced
from backwire._builder._value import Operand, Value

_NUDGE = 1e-6  # what PyTorch adds to differences, so that a distance of 0 has a gradient


def cosine_similarity(a: Value, b: Operand, axis: int = -1, *, epsilon: float = 1e-8) -> Value:
    """Returns a·b / (|a|·|b|) along the axis, -1 to 1; norms below `epsilon` count as that. Both have one shape.

    Example:
        >>> a, b = bw.input("a", ("batch", 64)), bw.input("b", ("batch", 64))
        >>> bw.cosine_similarity(a, b).shape
        ('batch',)
    """
    positive("cosine_similarity", "epsilon", epsilon)
    x, y = paired("cosine_similarity", a, b)
    norms = (_functions_math.sqrt(_functions_math.maximum(_dot(z, z, axis), epsilon**2)) for z in (x, y))
    return _dot(x, y, axis) / next(norms) / next(norms)


def cosine_loss(
    a: Value, b: Operand, targets: Operand | None = None, *, margin: float = 0.0, reduction: Reduction = "mean"
) -> Value:
    """Returns 1 - cosine where a and b [..., features] shall be alike, and max(0, cosine - margin) where not.

    Args:
        a: The vectors.
        b: What they are compared with.
        targets: [...], 1 for alike and -1 for not; None when all are.
        margin: What cosine is small enough for vectors that are not alike.
        reduction: The mean over all pairs, their sum, or `"none"` for each.

    Example:
        >>> a, b = bw.input("a", ("batch", 64)), bw.input("b", ("batch", 64))
        >>> loss = bw.cosine_loss(a, b, bw.input("alike", ("batch",)), margin=0.2)
    """
    cosine = cosine_similarity(a, b)
    if targets is None:
        return reduced(1 - cosine, reduction)
    _, t = paired("cosine_loss", cosine, targets)
    return reduced(_functions_math.where(t > 0, 1 - cosine, _activations.relu(cosine - margin)), reduction)


def triplet_loss(
    anchor: Value, alike: Operand, other: Operand, *, margin: float = 1.0, reduction: Reduction = "mean"
) -> Value:
    """Returns max(0, |anchor - alike| - |anchor - other| + margin) of vectors [..., features] (Schroff et al. 2015).

    Distances are Euclidean; `reduction` is over all triplets.

    Example:
        >>> anchor, alike, other = (bw.input(name, ("batch", 64)) for name in ("anchor", "alike", "other"))
        >>> loss = bw.triplet_loss(anchor, alike, other, margin=0.5)
    """
    near, far = (_distance(*paired("triplet_loss", anchor, each)) for each in (alike, other))
    return reduced(_activations.relu(near - far + margin), reduction)


def _dot(a: Value, b: Value, axis: int) -> Value:
    return _functions_reduction.sum(a * b, axis=axis)


def _distance(a: Value, b: Value) -> Value:
    difference = a - b + _NUDGE
    return _functions_math.sqrt(_dot(difference, difference, -1))
