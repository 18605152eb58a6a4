"""Normalisations, as formulas of means and variances."""

from typing import Any

from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.ops.reduction import count
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import axis_of, require, require_equal, require_rank
from backwire_server.engine.values import O, Value


def _per_channel(x: Value, value: Value, what: str) -> Value:
    """Returns a vector [C] in a shape that broadcasts to x [N, C, ...]."""
    require_rank(value, 1, 1)
    require_equal(value.shape[0], x.shape[1], f"sizes of {what} and channels")
    return O.Reshape(value, [-1, *[1] * (x.rank - 2)])


def _moments(x: Value, axes: list[int]) -> tuple[Value, Value]:
    """Returns the mean over the axes, which are kept, and x less the mean."""
    mean = O.ReduceMean(x, axes)
    return mean, x - mean


def _standardized(x: Value, axes: list[int], epsilon: float) -> tuple[Value, Value, Value]:
    """Returns (x - mean) / sqrt(variance + epsilon) over the axes, the mean, and that root's reciprocal."""
    mean, centered = _moments(x, axes)
    scale = O.Reciprocal(O.Sqrt(O.ReduceMean(centered * centered, axes) + epsilon))
    return centered * scale, mean, scale


def _stashed(x: Value, stash_type: int) -> Value:
    """Returns x in the type of at least float32 that normalisation is computed in; bfloat16 when asked for."""
    require(x, "f")
    if stash_type not in (1, 16):
        raise InvalidAttribute(f"stash_type is {stash_type}; use 1 for float32 or 16 for bfloat16")
    narrow = x.dtype.itemsize < 4
    return O.Cast(x, to="float32" if stash_type == 1 else "bfloat16") if narrow else x


STATISTICS = (F(3), F(3), F(3), F(3, low=0.5))


@function(
    "BatchNormalization",
    outputs=3,
    samples=[
        case(F(2, 3, 4), *STATISTICS),
        case(F(4, 3), *STATISTICS, epsilon=0.1),
        case(F(2, 3, 2, 2), *STATISTICS, training_mode=1, n_outputs=3),
        case(F(5, 3), *STATISTICS, training_mode=1, momentum=0.4, n_outputs=3),
    ],
)
def batch_normalization(
    x: Value,
    scale: Value,
    bias: Value,
    input_mean: Value,
    input_var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> tuple[Value, Value, Value]:
    """scale (x - mean) / sqrt(variance + epsilon) + bias for each channel of x [N, C, ...] (Ioffe and Szegedy 2015).

    With `training_mode`, while training, mean and variance are those of the batch, over all axes but the channels,
    and the further outputs are momentum times the given ones plus 1 - momentum times those of the batch. Otherwise
    mean and variance are the given ones, and the further outputs are these.
    """
    require_rank(x, 2)
    mean, variance = (_per_channel(x, each, "statistics") for each in (input_mean, input_var))
    training = training_mode and x.builder.training
    if training:
        axes = [axis for axis in range(x.rank) if axis != 1]
        if count(x, tuple(axes)) == 0:
            raise ShapeMismatch("a batch without elements has no statistics; give at least one")
        mean, centered = _moments(x, axes)
        variance = O.ReduceMean(centered * centered, axes)
        input_mean = _blended(input_mean, mean, momentum)
        input_var = _blended(input_var, variance, momentum)
    factor = _per_channel(x, scale, "scale") / O.Sqrt(variance + epsilon)
    result = (centered if training else x - mean) * factor + _per_channel(x, bias, "bias")
    return result, input_mean, input_var


def _blended(running: Value, current: Value, momentum: float) -> Value:
    flat = O.Cast(O.Reshape(current, [-1]), to=running.dtype.name)
    return running * momentum + flat * (1.0 - momentum)


@function("InstanceNormalization", samples=[case(F(2, 3, 4), F(3), F(3)), case(F(1, 2, 2, 3), F(2), F(2), epsilon=0.1)])
def instance_normalization(x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5) -> Value:
    """scale (x - mean) / sqrt(variance + epsilon) + bias, over the spatial axes of x [N, C, d1, ...]."""
    require_rank(x, 3)
    normal, _, _ = _standardized(x, list(range(2, x.rank)), epsilon)
    return normal * _per_channel(x, scale, "scale") + _per_channel(x, bias, "bias")


@function(
    "GroupNormalization",
    samples=[case(F(2, 4, 3), F(4), F(4), num_groups=2), case(F(1, 3, 2, 2), F(3), F(3), num_groups=1, epsilon=0.1)],
)
def group_normalization(
    x: Value, scale: Value, bias: Value, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    """InstanceNormalization over groups of channels together; scale and bias are per channel (Wu and He 2018)."""
    require_rank(x, 2)
    channels = int(x.shape[1])
    if num_groups < 1 or channels % num_groups:
        raise InvalidAttribute(f"num_groups is {num_groups}; it must divide the {channels} channels")
    wide = _stashed(x, stash_type)
    grouped = O.Reshape(wide, [0, num_groups, -1])
    normal, _, _ = _standardized(grouped, [2], epsilon)
    normal = O.CastLike(O.Reshape(normal, [0, *x.shape[1:]]), x)
    return normal * _per_channel(x, scale, "scale") + _per_channel(x, bias, "bias")


@function(
    "LayerNormalization",
    outputs=3,
    samples=[
        case(F(2, 4), F(4), F(4)),
        case(F(2, 3, 2), F(3, 2), axis=1),
        case(F(2, 3), F(3), F(3), axis=-1, epsilon=0.1),
    ],
)
def layer_normalization(
    x: Value,
    scale: Value,
    bias: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    n_outputs: int = 1,
) -> tuple[Value, ...]:
    """scale (x - mean) / sqrt(variance + epsilon) + bias over the axes from `axis` on (Ba et al. 2016).

    Further outputs: the mean, and 1 / sqrt(variance + epsilon). Half precision is normalised in float32.
    """
    axes = list(range(axis_of(axis, x.rank), x.rank))
    normal, mean, deviation = _standardized(_stashed(x, stash_type), axes, epsilon)
    result = O.CastLike(normal, x) * scale
    return (result if bias is None else result + bias, mean, deviation)[:n_outputs]


@function("RMSNormalization", samples=[case(F(2, 4), F(4)), case(F(2, 3, 2), F(3, 2), axis=1, epsilon=0.1)])
def rms_normalization(x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Value:
    """scale x / sqrt(mean of x^2 + epsilon) over the axes from `axis` on (Zhang and Sennrich 2019)."""
    axes = list(range(axis_of(axis, x.rank), x.rank))
    wide = _stashed(x, stash_type)
    normal = wide / O.Sqrt(O.ReduceMean(wide * wide, axes) + epsilon)
    return O.CastLike(normal, x) * scale


@function("LpNormalization", samples=[case(F(2, 3)), case(F(3, 2, low=0.3), axis=0, p=1)])
def lp_normalization(x: Value, *, axis: int = -1, p: int = 2) -> Value:
    """x divided by its norm along the axis, the sum of magnitudes (p = 1) or Euclidean (p = 2); 0 where that is 0."""
    if p not in (1, 2):
        raise InvalidAttribute(f"p is {p}; use 1 or 2")
    at = axis_of(axis, x.rank)
    norm = O.ReduceL1(x, [at]) if p == 1 else O.ReduceL2(x, [at])
    return x / O.Where(O.Equal(norm, 0.0), 1.0, norm)


@function("MeanVarianceNormalization", samples=[case(F(2, 3, 2, 2)), case(F(2, 3), axes=(1,))])
def mean_variance_normalization(x: Value, *, axes: tuple[int, ...] = (0, 2, 3)) -> Value:
    """(x - mean) / (standard deviation + 1e-9) over the axes."""
    over = [axis_of(axis, x.rank) for axis in axes]
    _, centered = _moments(x, over)
    return centered / (O.Sqrt(O.ReduceMean(centered * centered, over)) + 1e-9)


@function("LRN", samples=[case(F(2, 4, 3), size=3), case(F(1, 5, 2, 2), size=2, alpha=0.5, beta=0.5, bias=2.0)])
def local_response_normalization(
    x: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Value:
    """x / (bias + alpha / size times the sum of x^2 over `size` neighbouring channels)^beta (Krizhevsky et al. 2012)"""
    require_rank(x, 3)
    if size < 1:
        raise InvalidAttribute(f"size is {size}; it must be at least 1")
    geometry: dict[str, Any] = {"kernel": (size, 1), "strides": (1, 1), "dilations": (1, 1)}
    before, after = (size - 1) // 2, size // 2
    lined = O.Reshape(x * x, [0, 1, x.shape[1], -1])
    total = O.Reshape(O.SumPooling(lined, pads=(before, 0, after, 0), **geometry), [0, *x.shape[1:]])
    return x / (total * (alpha / size) + bias) ** beta
