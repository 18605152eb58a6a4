"""Activations, named as in PyTorch."""

from backwire._builder import _functions_math, _functions_shape, _shapes
from backwire._builder._functions_math import float_unary
from backwire._builder._value import Value, require_float, require_value

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # of more digits than the attributes of Selu hold


def relu(x: Value) -> Value:
    """Returns max(x, 0); the gradient at 0 is 0.

    Example:
        >>> bw.relu(bw.input("x", ("batch", 3)))
        <Relu: float32[batch, 3]>
    """
    return float_unary("Relu", x)


def leaky_relu(x: Value, slope: float = 0.01) -> Value:
    """Returns x where it is positive, and slope * x elsewhere.

    Example:
        >>> bw.leaky_relu(bw.input("x", ("batch", 3)), 0.2)
        <LeakyRelu: float32[batch, 3]>
    """
    return float_unary("LeakyRelu", x, alpha=float(slope))


def elu(x: Value, alpha: float = 1.0) -> Value:
    """Returns x where it is positive, and alpha * (exp(x) - 1) elsewhere (Clevert et al. 2016).

    Example:
        >>> bw.elu(bw.input("x", ("batch", 3)))
        <Elu: float32[batch, 3]>
    """
    return float_unary("Elu", x, alpha=float(alpha))


def sigmoid(x: Value) -> Value:
    """Returns 1 / (1 + exp(-x)).

    Example:
        >>> bw.sigmoid(bw.input("x", ("batch", 3)))
        <Sigmoid: float32[batch, 3]>
    """
    return float_unary("Sigmoid", x)


def tanh(x: Value) -> Value:
    """Returns the hyperbolic tangent of every element.

    Example:
        >>> bw.tanh(bw.input("x", ("batch", 3)))
        <Tanh: float32[batch, 3]>
    """
    return float_unary("Tanh", x)


def softplus(x: Value) -> Value:
    """Returns log(1 + exp(x)).

    Example:
        >>> bw.softplus(bw.input("x", ("batch", 3)))
        <Softplus: float32[batch, 3]>
    """
    return float_unary("Softplus", x)


def gelu(x: Value, *, approximate: bool = False) -> Value:
    """Returns x * Phi(x), Phi being the normal distribution, or its approximation by tanh (Hendrycks, Gimpel 2016).

    Example:
        >>> bw.gelu(bw.input("x", ("batch", 3)))
        <Gelu: float32[batch, 3]>
    """
    return float_unary("Gelu", x, approximate="tanh" if approximate else "none")


def softmax(x: Value, axis: int = -1) -> Value:
    """Returns exp(x) divided by its sum along `axis`.

    Example:
        >>> bw.softmax(bw.input("x", ("batch", 3)))
        <Softmax: float32[batch, 3]>
    """
    return float_unary("Softmax", x, axis=_checked_axis("Softmax", x, axis))


def log_softmax(x: Value, axis: int = -1) -> Value:
    """Returns the logarithm of softmax along `axis`, without its rounding errors.

    Example:
        >>> bw.log_softmax(bw.input("x", ("batch", 3)))
        <LogSoftmax: float32[batch, 3]>
    """
    return float_unary("LogSoftmax", x, axis=_checked_axis("LogSoftmax", x, axis))


def silu(x: Value) -> Value:
    """Returns x·σ(x), also called swish (Hendrycks and Gimpel 2016; Ramachandran et al. 2017).

    Example:
        >>> bw.silu(bw.input("x", ("batch", 8)))
        <Mul: float32[batch, 8]>
    """
    return x * sigmoid(x)


def mish(x: Value) -> Value:
    """Returns x·tanh(softplus(x)) (Misra 2019).

    Example:
        >>> bw.mish(bw.input("x", ("batch", 8)))
        <Mish: float32[batch, 8]>
    """
    return float_unary("Mish", x)


def selu(x: Value) -> Value:
    """Returns 1.0507·x where it is positive, 1.7581·(exp(x) - 1) elsewhere (Klambauer et al. 2017).

    Deep networks keep the variance of their values when they begin with `bw.LeCunNormal()`.

    Example:
        >>> bw.selu(bw.dense(bw.input("x", ("batch", 8)), 4, name="d", initializer=bw.LeCunNormal())).shape
        ('batch', 4)
    """
    require_float("Selu", x)
    return _functions_math.where(x > 0, x * _SELU_SCALE, elu(x) * (_SELU_SCALE * _SELU_ALPHA))


def celu(x: Value, alpha: float = 1.0) -> Value:
    """Returns max(x, 0) + min(alpha·(exp(x / alpha) - 1), 0), smooth for every alpha above 0 (Barron 2017).

    Example:
        >>> bw.celu(bw.input("x", ("batch", 8)), 0.5)
        <Celu: float32[batch, 8]>
    """
    return float_unary("Celu", x, alpha=float(alpha))


def softsign(x: Value) -> Value:
    """Returns x / (1 + |x|) (Bergstra et al. 2009).

    Example:
        >>> bw.softsign(bw.input("x", ("batch", 8)))
        <Softsign: float32[batch, 8]>
    """
    return float_unary("Softsign", x)


def hard_sigmoid(x: Value) -> Value:
    """Returns x/6 + 1/2 limited to [0, 1] (Howard et al. 2019).

    Example:
        >>> bw.hard_sigmoid(bw.input("x", ("batch", 8)))
        <Clip: float32[batch, 8]>
    """
    require_float("HardSigmoid", x)
    return _functions_math.clip(x / 6 + 0.5, 0, 1)


def hard_swish(x: Value) -> Value:
    """Returns x·hard_sigmoid(x) (Howard et al. 2019).

    Example:
        >>> bw.hard_swish(bw.input("x", ("batch", 8)))
        <HardSwish: float32[batch, 8]>
    """
    return float_unary("HardSwish", x)


def glu(x: Value, axis: int = -1) -> Value:
    """Returns a·σ(b), a and b being the halves of x along the axis, whose size must be even (Dauphin et al. 2017).

    Example:
        >>> bw.glu(bw.input("x", ("batch", 8)))
        <Mul: float32[batch, 4]>
    """
    a, b = _functions_shape.split(x, 2, axis)
    return a * sigmoid(b)


def _checked_axis(op: str, x: Value, axis: int) -> int:
    require_value(op, x)
    if x.shape is not None:
        _shapes.axis_of(f"{op} of {x.label}", axis, len(x.shape))
    return axis
