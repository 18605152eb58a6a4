"""Blocks of transformers, and what they and other deep networks are made of: residuals and feed-forward layers."""

from collections.abc import Callable

from backwire._builder import _activations, _functions_nn, _layers, _shapes
from backwire._builder._layers import known_size
from backwire._builder._layers_attention import multi_head_attention
from backwire._builder._normalization import layer_norm
from backwire._builder._value import Operand, Value
from backwire._errors import ShapeError

Activation = Callable[[Value], Value]


def residual(x: Value, body: Callable[[Value], Value], *, shortcut: Callable[[Value], Value] | None = None) -> Value:
    """Returns x + body(x), which passes gradients on past the body (He et al. 2016).

    Args:
        x: A value.
        body: What is learned on top of it; returns the shape of x.
        shortcut: What x becomes before it is added where the body changes the shape; None for x itself.

    Raises:
        ShapeError: The two do not have one shape.

    Example:
        >>> images = bw.input("images", ("batch", 16, 8, 8))
        >>> bw.residual(images, lambda x: bw.conv2d(bw.relu(x), 16, 3, name="conv", padding="same")).shape
        ('batch', 16, 8, 8)
    """
    kept, learned = (shortcut or (lambda same: same))(x), body(x)
    a, b = kept.shape, learned.shape
    if a is not None and b is not None and (len(a) != len(b) or not all(map(_shapes.may_equal, a, b))):
        raise ShapeError(f"residual: {kept!r} and {learned!r} must have one shape; give a shortcut that changes it")
    return kept + learned


def feed_forward(
    x: Value,
    hidden: int,
    *,
    name: str,
    activation: Activation = _activations.gelu,
    gated: bool = False,
    dropout: float = 0.0,
    use_bias: bool = True,
) -> Value:
    """Returns two dense layers over the last axis, whose size stays: `name/up` to `hidden`, and `name/down` back.

    With `gated` a third, `name/gate`, goes through the activation and multiplies the first (Shazeer 2020); with
    `bw.silu` that is SwiGLU. `dropout` is the rate of it between the layers.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> bw.feed_forward(words, 256, name="mlp", activation=bw.silu, gated=True).shape
        ('batch', 20, 64)
    """
    features = known_size(f"feed_forward {name!r}", x, -1)
    up = _layers.dense(x, hidden, name=f"{name}/up", use_bias=use_bias)
    gate = _layers.dense(x, hidden, name=f"{name}/gate", use_bias=use_bias) if gated else None
    h = activation(up) if gate is None else activation(gate) * up
    h = _functions_nn.dropout(h, dropout) if dropout else h
    return _layers.dense(h, features, name=f"{name}/down", use_bias=use_bias)


def transformer_encoder_block(
    x: Value,
    *,
    heads: int,
    hidden: int,
    name: str,
    mask: Operand | None = None,
    key_mask: Value | None = None,
    causal: bool = False,
    rotate: bool = False,
    dropout: float = 0.0,
    norm_first: bool = True,
    activation: Activation = _activations.gelu,
) -> Value:
    """Returns x [batch, steps, features] after self-attention and a feed-forward layer, both as residuals.

    Its layers are `name/attention`, `name/attention_norm`, `name/mlp` and `name/mlp_norm`. With `causal`, it is the
    block of a language model.

    Args:
        x: The sequences.
        heads: How many heads of attention there are.
        hidden: The size within the feed-forward layer.
        name: What its parameters are called by.
        mask: As in `bw.multi_head_attention`, and so are `key_mask`, `causal` and `rotate`.
        key_mask: Bools [batch, steps]: which steps there are.
        causal: Whether a step may only attend to those up to it.
        rotate: Whether queries and keys are turned by their places.
        dropout: The rate of dropout of what is added to x, and within the feed-forward layer.
        norm_first: Whether layers read what is normalized (Xiong et al. 2020), or what they return is normalized after
            it was added (Vaswani et al. 2017).
        activation: That of the feed-forward layer.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> bw.transformer_encoder_block(words, heads=4, hidden=256, name="block", causal=True).shape
        ('batch', 20, 64)
    """

    def attend(h: Value) -> Value:
        return multi_head_attention(
            h, heads=heads, name=f"{name}/attention", mask=mask, key_mask=key_mask, causal=causal, rotate=rotate
        )

    x = _added(x, attend, f"{name}/attention_norm", dropout, norm_first)
    return _with_feed_forward(x, hidden, name, activation, dropout, norm_first)


def transformer_decoder_block(
    x: Value,
    memory: Value,
    *,
    heads: int,
    hidden: int,
    name: str,
    key_mask: Value | None = None,
    memory_mask: Value | None = None,
    causal: bool = True,
    dropout: float = 0.0,
    norm_first: bool = True,
    activation: Activation = _activations.gelu,
) -> Value:
    """Returns x [batch, steps, features] after attention to itself, then to `memory`, and a feed-forward layer.

    Its layers are those of `bw.transformer_encoder_block`, and `name/cross` and `name/cross_norm`.

    Args:
        x: The sequences that are being written.
        memory: What an encoder made of the sequences that were read, [batch, read, features].
        heads: How many heads each attention has.
        hidden: The size within the feed-forward layer.
        name: What its parameters are called by.
        key_mask: Bools [batch, steps]: which steps of x there are.
        memory_mask: Bools [batch, read]: which steps of the memory there are.
        causal: Whether a step of x may only attend to those up to it.
        dropout: As in `bw.transformer_encoder_block`.
        norm_first: As in `bw.transformer_encoder_block`.
        activation: That of the feed-forward layer.

    Example:
        >>> words, memory = bw.input("words", ("batch", 20, 64)), bw.input("memory", ("batch", 30, 64))
        >>> bw.transformer_decoder_block(words, memory, heads=4, hidden=256, name="block").shape
        ('batch', 20, 64)
    """

    def attend(h: Value) -> Value:
        return multi_head_attention(h, heads=heads, name=f"{name}/attention", key_mask=key_mask, causal=causal)

    def cross(h: Value) -> Value:
        return multi_head_attention(h, memory, heads=heads, name=f"{name}/cross", key_mask=memory_mask)

    x = _added(x, attend, f"{name}/attention_norm", dropout, norm_first)
    x = _added(x, cross, f"{name}/cross_norm", dropout, norm_first)
    return _with_feed_forward(x, hidden, name, activation, dropout, norm_first)


def _with_feed_forward(
    x: Value, hidden: int, name: str, activation: Activation, dropout: float, norm_first: bool
) -> Value:
    def think(h: Value) -> Value:
        return feed_forward(h, hidden, name=f"{name}/mlp", activation=activation, dropout=dropout)

    return _added(x, think, f"{name}/mlp_norm", dropout, norm_first)


def _added(x: Value, layer: Activation, norm: str, dropout: float, norm_first: bool) -> Value:
    def body(h: Value) -> Value:
        found = layer(layer_norm(h, name=norm) if norm_first else h)
        return _functions_nn.dropout(found, dropout) if dropout else found

    summed = residual(x, body)
    return summed if norm_first else layer_norm(summed, name=norm)
