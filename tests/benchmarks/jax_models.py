"""The models as functions of JAX, with parameters of Backwire's names, layout and first values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from tests.benchmarks import values

Array = Any
Parameter = Callable[[str, tuple[int, ...]], Array]
"""Returns the parameter of a name, which must have the shape."""


def parameters(model: str) -> dict[str, Array]:
    """Returns the first values of all parameters of a model."""
    found: dict[str, Array] = {}

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        return found.setdefault(name, jnp.asarray(values.parameter(name, shape)))

    _MODELS[model](model, draw, **values.batch(model))
    return found


def loss(model: str, given: dict[str, Array], batch: dict[str, Array]) -> Array:
    """Returns the loss of a batch."""
    return _MODELS[model](model, lambda name, _: given[name], **batch)


def _mlp(model: str, p: Parameter, x: Array, y: Array) -> Array:
    for index, units in enumerate(values.MLPS[model][1][1:]):
        x = jax.nn.relu(_dense(p, x, units, f"hidden{index}"))
    return _cross_entropy(_dense(p, x, values.CLASSES, "top"), y)


def _lenet(_: str, p: Parameter, x: Array, y: Array) -> Array:
    x = _max_pool(jax.nn.relu(_conv(p, x, 6, 5, "conv0", padding=2, bias=True)))
    x = _max_pool(jax.nn.relu(_conv(p, x, 16, 5, "conv1", bias=True)))
    x = x.reshape(len(x), -1)
    x = jax.nn.relu(_dense(p, x, 120, "dense0"))
    x = jax.nn.relu(_dense(p, x, 84, "dense1"))
    return _cross_entropy(_dense(p, x, values.CLASSES, "top"), y)


def _resnet8(_: str, p: Parameter, x: Array, y: Array) -> Array:
    x = jax.nn.relu(_normed_conv(p, x, values.RESNET_FILTERS[0], "stem"))
    for index, filters in enumerate(values.RESNET_FILTERS):
        stride = 2 if index else 1
        inner = jax.nn.relu(_normed_conv(p, x, filters, f"block{index}/first", stride))
        inner = _normed_conv(p, inner, filters, f"block{index}/second")
        if index:
            x = _conv(p, x, filters, 1, f"block{index}/shortcut", stride=stride)
        x = jax.nn.relu(inner + x)
    return _cross_entropy(_dense(p, x.mean((2, 3)), values.CLASSES, "top"), y)


def _transformer(_: str, p: Parameter, x: Array, y: Array) -> Array:
    width, length, heads = values.TRANSFORMER_WIDTH, values.TRANSFORMER_LENGTH, values.TRANSFORMER_HEADS
    h = p("embedding/weight", (values.VOCABULARY, width))[x] + p("positions", (length, width))
    hidden = jnp.triu(jnp.full((length, length), -jnp.inf), 1)
    for name in (f"layer{index}" for index in range(values.TRANSFORMER_LAYERS)):
        normed = _layer_norm(p, h, f"{name}/before")
        q, k, v = (
            _dense(p, normed, width, f"{name}/{part}").reshape(*h.shape[:2], heads, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) * (width // heads) ** -0.5 + hidden
        mixed = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(h.shape)
        h = h + _dense(p, mixed, width, f"{name}/output")
        wide = _dense(p, _layer_norm(p, h, f"{name}/between"), 4 * width, f"{name}/wide")
        h = h + _dense(p, jax.nn.gelu(wide, approximate=False), width, f"{name}/narrow")
    logits = _dense(p, _layer_norm(p, h, "last"), values.VOCABULARY, "top")
    return _cross_entropy(logits.reshape(-1, values.VOCABULARY), y.reshape(-1))


def _lstm(_: str, p: Parameter, x: Array, y: Array) -> Array:
    width = values.LSTM_WIDTH
    w, r = (p(f"lstm/{name}", (1, 4 * width, width))[0] for name in "WR")
    b = p("lstm/Wb", (1, 4 * width))[0] + p("lstm/Rb", (1, 4 * width))[0]

    def step(state: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], None]:
        h, cell = state
        i, o, f, c = jnp.split(gates + h @ r.T, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(c)
        return (jax.nn.sigmoid(o) * jnp.tanh(cell), cell), None

    zeros = jnp.zeros((x.shape[1], width))
    (h, _cell), _none = lax.scan(step, (zeros, zeros), x @ w.T + b)
    return _cross_entropy(_dense(p, h, values.CLASSES, "top"), y)


def _dense(p: Parameter, x: Array, units: int, name: str) -> Array:
    return x @ p(f"{name}/weight", (x.shape[-1], units)) + p(f"{name}/bias", (units,))


def _conv(
    p: Parameter, x: Array, filters: int, size: int, name: str, *, stride: int = 1, padding: int = 0, bias: bool = False
) -> Array:
    weight = p(f"{name}/weight", (filters, x.shape[1], size, size))
    y = lax.conv_general_dilated(x, weight, (stride, stride), [(padding, padding)] * 2)
    return y + p(f"{name}/bias", (filters,))[:, None, None] if bias else y


def _normed_conv(p: Parameter, x: Array, filters: int, name: str, stride: int = 1) -> Array:
    h = _conv(p, x, filters, 3, f"{name}/conv", stride=stride, padding=1)
    scale, bias = (p(f"{name}/norm/{part}", (filters,))[:, None, None] for part in ("scale", "bias"))
    mean, variance = h.mean((0, 2, 3), keepdims=True), h.var((0, 2, 3), keepdims=True)
    return (h - mean) * lax.rsqrt(variance + 1e-5) * scale + bias


def _layer_norm(p: Parameter, x: Array, name: str) -> Array:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scale, bias = (p(f"{name}/{part}", x.shape[-1:]) for part in ("scale", "bias"))
    return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + bias


def _max_pool(x: Array) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def _cross_entropy(logits: Array, y: Array) -> Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


_MODELS: dict[str, Callable[..., Array]] = {
    **dict.fromkeys(values.MLPS, _mlp),
    "LeNet": _lenet,
    "ResNet-8": _resnet8,
    "transformer": _transformer,
    "LSTM": _lstm,
}
