"""Normalization layers; the running statistics of batch normalization are state that passes in train mode update."""

from backwire._builder._declare import parameter
from backwire._builder._initializers import Ones, Zeros
from backwire._builder._layers import known_size
from backwire._builder._node import Node
from backwire._builder._spatial import require_channels
from backwire._builder._value import Value, apply, require_float
from backwire._errors import ShapeError


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
    scale, bias = _per_channel(what, x, name)
    channels = (known_size(what, x, 1),)
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
    sizes = _last_sizes(what, x, axes)
    scale = parameter(f"{name}/scale", sizes, initializer=Ones(), dtype=x.dtype)
    bias = parameter(f"{name}/bias", sizes, initializer=Zeros(), dtype=x.dtype)
    attributes = {"axis": -axes, "epsilon": float(epsilon)}
    return apply("LayerNormalization", [x, scale, bias], x.dtype, x.shape, attributes=attributes, scope=name)


def rms_norm(x: Value, *, name: str, axes: int = 1, epsilon: float = 1e-5) -> Value:
    """Returns x over the root of the mean of x² over its last `axes` axes, times `name/scale` (Zhang, Sennrich 2019).

    The parameter has the shape of those axes and begins as ones.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> bw.rms_norm(words, name="norm")
        <norm/RMSNormalization: float32[batch, 20, 64]>
    """
    what = f"rms_norm {name!r}"
    sizes = _last_sizes(what, x, axes)
    scale = parameter(f"{name}/scale", sizes, initializer=Ones(), dtype=x.dtype)
    attributes = {"axis": -axes, "epsilon": float(epsilon)}
    return apply("RMSNormalization", [x, scale], x.dtype, x.shape, attributes=attributes, scope=name)


def group_norm(x: Value, groups: int, *, name: str, epsilon: float = 1e-5) -> Value:
    """Returns x [batch, channels, ...] normalized for each example over each group of channels (Wu and He 2018).

    Then times `name/scale` (ones) plus `name/bias` (zeros), both [channels]. One group of all channels is layer
    normalization of images.

    Example:
        >>> images = bw.input("images", ("batch", 16, 32, 32))
        >>> bw.group_norm(images, 4, name="norm")
        <norm/GroupNormalization: float32[batch, 16, 32, 32]>
    """
    what = f"group_norm {name!r}"
    scale, bias = _per_channel(what, x, name)
    channels = known_size(what, x, 1)
    if groups < 1 or channels % groups:
        raise ShapeError(f"{what}: {groups} groups do not divide the {channels} channels of {x!r}; use a divisor")
    attributes = {"num_groups": groups, "epsilon": float(epsilon)}
    return apply("GroupNormalization", [x, scale, bias], x.dtype, x.shape, attributes=attributes, scope=name)


def instance_norm(x: Value, *, name: str, epsilon: float = 1e-5) -> Value:
    """Returns x [batch, channels, *spatial] normalized for each example and channel (Ulyanov et al. 2016).

    Then times `name/scale` (ones) plus `name/bias` (zeros), both [channels].

    Example:
        >>> images = bw.input("images", ("batch", 3, 32, 32))
        >>> bw.instance_norm(images, name="norm")
        <norm/InstanceNormalization: float32[batch, 3, 32, 32]>
    """
    what = f"instance_norm {name!r}"
    require_channels(what, x)
    scale, bias = _per_channel(what, x, name)
    attributes = {"epsilon": float(epsilon)}
    return apply("InstanceNormalization", [x, scale, bias], x.dtype, x.shape, attributes=attributes, scope=name)


def _per_channel(what: str, x: Value, name: str) -> tuple[Value, Value]:
    """Returns the scale and the bias of a layer for [batch, channels, ...]."""
    require_float(what, x)
    channels = (known_size(what, x, 1),)
    scale = parameter(f"{name}/scale", channels, initializer=Ones(), dtype=x.dtype)
    return scale, parameter(f"{name}/bias", channels, initializer=Zeros(), dtype=x.dtype)


def _last_sizes(what: str, x: Value, axes: int) -> tuple[int, ...]:
    require_float(what, x)
    if axes < 1:
        raise ShapeError(f"{what}: axes is {axes}; normalize over at least 1")
    return tuple(known_size(what, x, axis) for axis in range(-axes, 0))
