"""Normalization layers; the running statistics of batch normalization are state that passes in train mode update."""

from backwire._declare import parameter
from backwire._errors import ShapeError
from backwire._initializers import Ones, Zeros
from backwire._layers import known_size
from backwire._value import Node, Value, apply, require_float


def batch_norm(x: Value, *, name: str, momentum: float = 0.9, epsilon: float = 1e-5) -> Value:
    """Returns x normalized for each channel, axis 1, of [batch, channels, ...] (Ioffe and Szegedy 2015).

    In train mode mean and variance are those of the batch; in eval mode the running ones, `name/mean` and
    `name/variance` [channels], frozen parameters that each pass in train mode moves: `momentum` times the old value
    plus `1 - momentum` times that of the batch. `name/scale` (ones) and `name/bias` (zeros) [channels] are trained.

    Example:
        >>> images = bw.input("images", ("batch", 3, 32, 32))
        >>> bw.batch_norm(images, name="norm")
        <norm/BatchNormalization: float32[batch, 3, 32, 32]>
    """
    what = f"batch_norm {name!r}"
    require_float(what, x)
    channels = (known_size(what, x, 1),)
    scale = parameter(f"{name}/scale", channels, initializer=Ones(), dtype=x.dtype)
    bias = parameter(f"{name}/bias", channels, initializer=Zeros(), dtype=x.dtype)
    mean = parameter(f"{name}/mean", channels, initializer=Zeros(), dtype=x.dtype, frozen=True)
    variance = parameter(f"{name}/variance", channels, initializer=Ones(), dtype=x.dtype, frozen=True)
    attributes = {"epsilon": float(epsilon), "momentum": float(momentum), "training_mode": 1}
    inputs, updates = (x, scale, bias, mean, variance), ((mean, 1), (variance, 2))
    node = Node("BatchNormalization", inputs, attributes, scope=name, outputs=3, updates=updates)
    return Value(node, x.dtype, x.shape)


def layer_norm(x: Value, *, name: str, axes: int = 1, epsilon: float = 1e-5) -> Value:
    """Returns x normalized over its last `axes` axes (Ba et al. 2016), then times `name/scale` plus `name/bias`.

    Both parameters have the shape of those axes and begin as ones and zeros.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> bw.layer_norm(words, name="norm")
        <norm/LayerNormalization: float32[batch, 20, 64]>
    """
    what = f"layer_norm {name!r}"
    require_float(what, x)
    if axes < 1:
        raise ShapeError(f"{what}: axes is {axes}; normalize over at least 1")
    sizes = tuple(known_size(what, x, axis) for axis in range(-axes, 0))
    scale = parameter(f"{name}/scale", sizes, initializer=Ones(), dtype=x.dtype)
    bias = parameter(f"{name}/bias", sizes, initializer=Zeros(), dtype=x.dtype)
    attributes = {"axis": -axes, "epsilon": float(epsilon)}
    return apply("LayerNormalization", [x, scale, bias], x.dtype, x.shape, attributes=attributes, scope=name)
