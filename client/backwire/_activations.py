"""Activations beyond the basic ones of `_functions_math`, named as in PyTorch."""

from backwire import _functions_math, _functions_shape
from backwire._value import Value, apply, require_float

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # of more digits than the attributes of Selu hold


def silu(x: Value) -> Value:
    """Returns x·σ(x), also called swish (Hendrycks and Gimpel 2016; Ramachandran et al. 2017).

    Example:
        >>> bw.silu(bw.input("x", ("batch", 8)))
        <Mul: float32[batch, 8]>
    """
    return x * _functions_math.sigmoid(x)


def mish(x: Value) -> Value:
    """Returns x·tanh(softplus(x)) (Misra 2019).

    Example:
        >>> bw.mish(bw.input("x", ("batch", 8)))
        <Mish: float32[batch, 8]>
    """
    return _unary("Mish", x)


def selu(x: Value) -> Value:
    """Returns 1.0507·x where it is positive, 1.7581·(exp(x) - 1) elsewhere (Klambauer et al. 2017).

    Deep networks keep the variance of their values when they begin with `bw.LeCunNormal()`.

    Example:
        >>> bw.selu(bw.dense(bw.input("x", ("batch", 8)), 4, name="d", initializer=bw.LeCunNormal())).shape
        ('batch', 4)
    """
    return _functions_math.where(x > 0, x * _SELU_SCALE, _functions_math.elu(x) * (_SELU_SCALE * _SELU_ALPHA))


def celu(x: Value, alpha: float = 1.0) -> Value:
    """Returns max(x, 0) + min(alpha·(exp(x / alpha) - 1), 0), smooth for every alpha above 0 (Barron 2017).

    Example:
        >>> bw.celu(bw.input("x", ("batch", 8)), 0.5)
        <Celu: float32[batch, 8]>
    """
    return _unary("Celu", x, alpha=float(alpha))


def softsign(x: Value) -> Value:
    """Returns x / (1 + |x|) (Bergstra et al. 2009).

    Example:
        >>> bw.softsign(bw.input("x", ("batch", 8)))
        <Softsign: float32[batch, 8]>
    """
    return _unary("Softsign", x)


def hard_sigmoid(x: Value) -> Value:
    """Returns x/6 + 1/2 limited to [0, 1] (Howard et al. 2019).

    Example:
        >>> bw.hard_sigmoid(bw.input("x", ("batch", 8)))
        <Clip: float32[batch, 8]>
    """
    return _functions_math.clip(x / 6 + 0.5, 0, 1)


def hard_swish(x: Value) -> Value:
    """Returns x·hard_sigmoid(x) (Howard et al. 2019).

    Example:
        >>> bw.hard_swish(bw.input("x", ("batch", 8)))
        <HardSwish: float32[batch, 8]>
    """
    return _unary("HardSwish", x)


def glu(x: Value, axis: int = -1) -> Value:
    """Returns a·σ(b), a and b being the halves of x along the axis, whose size must be even (Dauphin et al. 2017).

    Example:
        >>> bw.glu(bw.input("x", ("batch", 8)))
        <Mul: float32[batch, 4]>
    """
    a, b = _functions_shape.split(x, 2, axis)
    return a * _functions_math.sigmoid(b)


def _unary(op: str, x: Value, **attributes: float) -> Value:
    require_float(op, x)
    return apply(op, [x], x.dtype, x.shape, attributes=attributes)
