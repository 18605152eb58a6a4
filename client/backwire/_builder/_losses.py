"""Losses of numbers: what training lowers. `reduction` says what becomes of them: their mean, their sum, or each.

Prediction and target must have one shape, which catches the [batch, 1] against [batch] that broadcasting would turn
into a matrix; a target may be a single number.
"""

from backwire._builder import _functions_math
from backwire._builder._reduction import Reduction, paired, positive, reduced, same_shape
from backwire._builder._value import Operand, Value, as_values


def squared_error(prediction: Value, target: Operand, *, half: bool = False, reduction: Reduction = "mean") -> Value:
    """Returns (prediction - target)², or half of it as textbooks have it, reduced over all elements.

    With `half` the gradient is the bare difference. Both must have one shape, which catches the [batch, 1] against
    [batch] that broadcasting would turn into a matrix.

    Example:
        >>> z, t = bw.input("z", ("batch",)), bw.input("t", ("batch",))
        >>> loss = bw.squared_error(bw.sigmoid(z), t, half=True, reduction="sum")
    """
    a, b = paired("squared_error", prediction, target)
    difference = a - b
    squared = difference * difference
    return reduced(squared * 0.5 if half else squared, reduction)


def absolute_error(prediction: Value, target: Operand, *, reduction: Reduction = "mean") -> Value:
    """Returns |prediction - target|, reduced over all elements. Both must have one shape.

    Example:
        >>> y, t = bw.input("y", ("batch",)), bw.input("t", ("batch",))
        >>> bw.absolute_error(y, t, reduction="none").shape
        ('batch',)
    """
    a, b = paired("absolute_error", prediction, target)
    return reduced(abs(a - b), reduction)


def huber_loss(prediction: Value, target: Operand, *, delta: float = 1.0, reduction: Reduction = "mean") -> Value:
    """Returns d²/2 where d = |prediction - target| is at most `delta`, and delta·(d - delta/2) beyond (Huber 1964).

    Reduced over all elements. Outliers pull with a gradient of at most `delta`.

    Example:
        >>> y, t = bw.input("y", ("batch",)), bw.input("t", ("batch",))
        >>> loss = bw.huber_loss(y, t, delta=2.0)
    """
    positive("huber_loss", "delta", delta)
    a, b = paired("huber_loss", prediction, target)
    distance = abs(a - b)
    inner = _functions_math.minimum(distance, delta)  # d²/2 and delta·(d - delta/2) are both inner·(d - inner/2)
    return reduced(inner * (distance - inner * 0.5), reduction)


def smooth_l1_loss(prediction: Value, target: Operand, *, beta: float = 1.0, reduction: Reduction = "mean") -> Value:
    """Returns d²/(2·beta) where d = |prediction - target| is below `beta`, and d - beta/2 beyond (Girshick 2015).

    Reduced over all elements. It is `huber_loss` divided by its delta: far away the gradient is 1, whatever beta is.

    Example:
        >>> boxes, truth = bw.input("boxes", ("batch", 4)), bw.input("truth", ("batch", 4))
        >>> loss = bw.smooth_l1_loss(boxes, truth, beta=0.1)
    """
    positive("smooth_l1_loss", "beta", beta)
    a, b = paired("smooth_l1_loss", prediction, target)
    return huber_loss(a, b, delta=beta, reduction=reduction) / beta


def poisson_loss(
    prediction: Value, target: Operand, *, log_rate: bool = True, epsilon: float = 1e-8, reduction: Reduction = "mean"
) -> Value:
    """Returns -log of the Poisson probability of counts, without the term log(target!) that no gradient needs.

    With `log_rate` the prediction x is the logarithm of the rate, and the loss exp(x) - target·x; without, x is the
    rate, and the loss x - target·log(x + epsilon). Reduced over all elements.

    Example:
        >>> scores, calls = bw.input("scores", ("batch",)), bw.input("calls", ("batch",))
        >>> loss = bw.poisson_loss(scores, calls)
    """
    x, t = paired("poisson_loss", prediction, target)
    if log_rate:
        return reduced(_functions_math.exp(x) - t * x, reduction)
    return reduced(x - t * _functions_math.log(x + epsilon), reduction)


def gaussian_loss(
    mean: Value, target: Operand, variance: Operand, *, epsilon: float = 1e-6, reduction: Reduction = "mean"
) -> Value:
    """Returns (log v + (mean - target)²/v)/2, v being the greater of `variance` and `epsilon` (Nix and Weigend 1994).

    That is -log of the normal density but for the constant log(2π)/2, reduced over all elements. `variance` has the
    shape of the mean, or is one number; no gradient flows to what is below `epsilon`.

    Example:
        >>> mean, spread, t = (bw.input(name, ("batch",)) for name in ("mean", "spread", "t"))
        >>> loss = bw.gaussian_loss(mean, t, bw.exp(spread))
    """
    positive("gaussian_loss", "epsilon", epsilon)
    a, b = paired("gaussian_loss", mean, target)
    _, v = as_values("gaussian_loss", a, variance)
    same_shape("gaussian_loss", a, v)
    v = _functions_math.maximum(v, epsilon)
    difference = a - b
    return reduced((_functions_math.log(v) + difference * difference / v) * 0.5, reduction)
