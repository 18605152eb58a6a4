"""Attention: what each step of a sequence takes from the steps of another, or of itself."""

from backwire._builder import _functions_math, _functions_nn, _functions_shape, _layers, _shapes
from backwire._builder._initializers import Initializer
from backwire._builder._layers import known_size
from backwire._builder._node import AttributeValue
from backwire._builder._positions import rotary
from backwire._builder._shapes import Shape
from backwire._builder._value import Operand, Value, apply, as_constant, as_values, insert_axes, require_float
from backwire._errors import ShapeError


def attention(
    query: Value,
    key: Value,
    value: Value,
    *,
    mask: Operand | None = None,
    causal: bool = False,
    scale: float | None = None,
    scope: str = "",
) -> Value:
    """Returns softmax(scale·query·keyᵀ + mask)·value (Vaswani et al. 2017): [batch, heads, queries, size of value].

    Args:
        query: [batch, heads, queries, size].
        key: [batch, heads, keys, size]; of fewer heads, each serves as many of the query's (Ainslie et al. 2023).
        value: [batch, heads of the key, keys, size of value].
        mask: What broadcasts to [batch, heads, queries, keys]: bools that say what may be attended to, or numbers that
            are added to the scores. A query that may attend to nothing gets zeros.
        causal: Whether query i may only attend to keys up to i.
        scale: By default 1/√size.
        scope: The name of the layer, for the name of the node.

    Example:
        >>> q = bw.input("q", ("batch", 8, 10, 64))
        >>> k, v = bw.input("k", ("batch", 8, 30, 64)), bw.input("v", ("batch", 8, 30, 32))
        >>> bw.attention(q, k, v)
        <Attention: float32[batch, 8, 10, 32]>
    """
    q, k, v = as_values("attention", query, key, value)
    for each in (q, k, v):
        require_float("attention", each)
        if each.shape is not None and len(each.shape) != 4:
            raise ShapeError(f"attention: {each!r} must be [batch, heads, steps, size]; reshape it")
    attributes: dict[str, AttributeValue] = {"is_causal": int(causal)}
    if scale is not None:
        attributes["scale"] = float(scale)
    inputs = [q, k, v, *([] if mask is None else [_mask(mask, q)])]
    shape: Shape = None if q.shape is None or v.shape is None else (*q.shape[:3], v.shape[3])
    return apply("Attention", inputs, q.dtype, shape, attributes=attributes, scope=scope)


def multi_head_attention(
    query: Value,
    key: Value | None = None,
    value: Value | None = None,
    *,
    heads: int,
    name: str,
    size: int | None = None,
    key_heads: int | None = None,
    mask: Operand | None = None,
    key_mask: Value | None = None,
    causal: bool = False,
    rotate: bool = False,
    dropout: float = 0.0,
    use_bias: bool = True,
    initializer: Initializer | None = None,
) -> Value:
    """Returns what several heads attend to, mixed: [batch, queries, features], as the query (Vaswani et al. 2017).

    Its dense layers are `name/query`, `name/key`, `name/value` and `name/output`.

    Args:
        query: [batch, queries, features].
        key: [batch, keys, features]; by default the query, which is self-attention.
        value: [batch, keys, features]; by default the key.
        heads: How many heads there are.
        name: What its parameters are called by.
        size: The size of a head; by default features / heads.
        key_heads: How many heads keys and values have; by default `heads`, fewer are shared (Ainslie et al. 2023).
        mask: As in `bw.attention`.
        key_mask: Bools [batch, keys]: which keys there are, others being padding.
        causal: Whether query i may only attend to keys up to i.
        rotate: Whether queries and keys are turned by their places, by `bw.rotary`.
        dropout: The rate of dropout of the result.
        use_bias: Whether the dense layers have biases.
        initializer: How their weights begin.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> bw.multi_head_attention(words, heads=4, name="attention", causal=True).shape
        ('batch', 20, 64)
    """
    what = f"multi_head_attention {name!r}"
    key = query if key is None else key
    value = key if value is None else value
    features = known_size(what, query, -1)
    size = _head_size(what, features, heads, size)
    shared = heads if key_heads is None else key_heads
    if shared < 1 or heads % shared:
        raise ShapeError(f"{what}: {heads} heads cannot share key_heads={shared}; use a divisor of heads")
    parts = {"query": (query, heads), "key": (key, shared), "value": (value, shared)}
    q, k, v = (
        _apart(_layers.dense(x, count * size, name=f"{name}/{part}", use_bias=use_bias, initializer=initializer), count)
        for part, (x, count) in parts.items()
    )
    if rotate:
        q, k = rotary(q), rotary(k)
    mixed = attention(q, k, v, mask=_joined(mask, key_mask, q), causal=causal, scope=name)
    batch, steps, *_ = query.shape or ()
    together = _functions_shape.reshape(_functions_shape.transpose(mixed, (0, 2, 1, 3)), (batch, steps, heads * size))
    out = _layers.dense(together, features, name=f"{name}/output", use_bias=use_bias, initializer=initializer)
    return _functions_nn.dropout(out, dropout) if dropout else out


def _head_size(what: str, features: int, heads: int, size: int | None) -> int:
    if heads < 1 or (size is None and features % heads):
        raise ShapeError(f"{what}: {heads} heads do not divide {features} features; choose a divisor, or give size")
    return features // heads if size is None else size


def _apart(x: Value, heads: int) -> Value:
    """Returns [batch, steps, heads·size] as [batch, heads, steps, size]."""
    if _shapes.rank_of("multi_head_attention", x.shape) != 3:
        raise ShapeError(
            f"multi_head_attention: {x!r} is no batch of sequences; reshape it to [batch, steps, features]"
        )
    batch, steps, width = x.shape or ()
    assert isinstance(width, int)
    return _functions_shape.transpose(_functions_shape.reshape(x, (batch, steps, heads, width // heads)), (0, 2, 1, 3))


def _mask(mask: Operand, like: Value) -> Value:
    """Returns bools as they are, and numbers in the dtype of the scores."""
    if isinstance(mask, Value):
        return mask
    given = as_constant(mask)
    return given if given.dtype.kind == "b" else as_constant(mask, like.dtype)


def _joined(mask: Operand | None, key_mask: Value | None, like: Value) -> Value | None:
    given = None if mask is None else _mask(mask, like)
    if key_mask is None:
        return given
    present = insert_axes(key_mask, (1, 2))
    if given is None:
        return present
    return present & given if given.dtype.kind == "b" else _functions_math.where(present, given, -float("inf"))
