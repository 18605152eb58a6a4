"""Attention."""

import math
from typing import Any

import numpy as np

from backwire_server.engine.dims import Dim
from backwire_server.engine.errors import GraphError, InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Array
from backwire_server.engine.ops.linear import transposed
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import common_dtype, require, require_equal, require_rank
from backwire_server.engine.values import O, Value

ALLOWED = np.array([[True, False, True], [True, True, False]])
HIDDEN_ROW = np.array([[False, False], [True, False]])


@function(
    "Attention",
    outputs=4,
    samples=[
        case(F(1, 1, 2, 2), F(1, 1, 3, 2), F(1, 1, 3, 1), F(2, 3), n_outputs=4),
        case(F(1, 2, 4), F(1, 2, 2), F(1, 2, 2), is_causal=1, q_num_heads=2, kv_num_heads=1, softcap=2.0),
        case(F(1, 1, 2, 2), F(1, 1, 1, 2), F(1, 1, 1, 1), None, F(1, 1, 2, 2), F(1, 1, 2, 1), is_causal=1, n_outputs=4),
        case(F(1, 1, 2, 2), F(1, 1, 3, 2), F(1, 1, 3, 1), ALLOWED, scale=0.5, qk_matmul_output_mode=3, n_outputs=4),
        case(F(1, 1, 2, 1), F(1, 1, 2, 1), F(1, 1, 2, 1), HIDDEN_ROW),
        case(F(2, 1, 2, 1), F(2, 1, 3, 1), F(2, 1, 3, 1), None, None, None, I(3, 2), is_causal=1, left_window_size=1),
    ],
)
def attention(
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    nonpad_kv_seqlen: Value | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: Any = None,
) -> tuple[Value, ...]:
    """Softmax(scale q k' + mask) v for each head (Vaswani et al. 2017); scale is 1 / sqrt(head size) if not given.

    q, k and v are [N, heads, steps, size], or [N, steps, heads size] with the numbers of heads; each head of k and v
    serves as many of q (Ainslie et al. 2023). The mask is added, or says what may be attended to; a query that may
    attend to nothing gives 0. With `softcap` c, s becomes c tanh(s / c) before the mask. The past is joined before k
    and v. Query i of a causal attention, after p earlier steps, attends to keys up to i + p, a window to those from
    i + p - left to i + p + right. `nonpad_kv_seqlen` [N] says how many of the keys count.

    Further outputs: the keys and the values with the past, and by `qk_matmul_output_mode` the scores before softcap
    (0), after it (1), with the mask (2), or their Softmax (3).
    """
    if (past_key is None) != (past_value is None):
        raise GraphError("past_key and past_value go together; give both or neither")
    if past_key is not None and nonpad_kv_seqlen is not None:
        raise GraphError("nonpad_kv_seqlen is for a cache that k and v are; leave out past_key and past_value")
    common_dtype([q, k], "f")
    flat = q.rank == 3
    q, k, v = heads_apart(q, q_num_heads, "q"), heads_apart(k, kv_num_heads, "kv"), heads_apart(v, kv_num_heads, "kv")
    present_key = k if past_key is None else O.Concat(past_key, k, axis=2)
    present_value = v if past_value is None else O.Concat(past_value, v, axis=2)
    raw = _scores(q, spread(present_key, q), scale)
    capped = O.Tanh(raw / softcap) * softcap if softcap > 0 else raw
    past = 0 if past_key is None else past_key.shape[2]
    right = [size for size in (0 if is_causal else -1, _window(right_window_size)) if size >= 0]
    visible = _visible(raw, past, nonpad_kv_seqlen, _window(left_window_size), min(right, default=-1))
    bias = _bias(raw, attn_mask, visible)
    masked = capped if bias is None else capped + bias
    probabilities = _probabilities(masked, bias, softmax_precision)
    y = typed_like(probabilities, v) @ spread(present_value, q)
    if flat:
        y = O.Reshape(O.Transpose(y, perm=(0, 2, 1, 3)), [0, 0, -1])
    stages = (raw, capped, masked, probabilities)
    if qk_matmul_output_mode not in range(len(stages)):
        raise InvalidAttribute(f"qk_matmul_output_mode is {qk_matmul_output_mode}; use 0, 1, 2 or 3")
    return typed_like(y, q), present_key, present_value, stages[qk_matmul_output_mode]


def typed_like(x: Value, like: Value) -> Value:
    """Returns x in the type of `like`: x itself, not a copy, if it has that type."""
    return x if x.dtype == like.dtype else O.CastLike(x, like)


def _window(size: int) -> int:
    if size < -1:
        raise InvalidAttribute(f"a window size is {size}; use -1 for no bound, or 0 and more")
    return size


def heads_apart(x: Value, count: int | None, prefix: str) -> Value:
    """Returns x as [N, heads, steps, size]."""
    require_rank(x, 3, 4)
    if x.rank == 4:
        if count is not None:
            require_equal(x.shape[1], count, f"axis 1 and {prefix}_num_heads")
        return x
    if count is None or count < 1:
        raise InvalidAttribute(f"{prefix}_num_heads is {count}; inputs of rank 3 need the number of their heads")
    if int(x.shape[2]) % count:
        raise InvalidAttribute(f"{prefix}_num_heads is {count}; it must divide the last axis, of {x.shape[2]}")
    return O.Transpose(O.Reshape(x, [0, 0, count, -1]), perm=(0, 2, 1, 3))


def spread(x: Value, q: Value) -> Value:
    """Returns x with each head repeated so that there is one for each head of q."""
    heads, wanted = int(x.shape[1]), int(q.shape[1])
    if not heads or wanted % heads:
        raise ShapeMismatch(f"{wanted} heads of q cannot share {heads} of k and v; use a multiple")
    if heads == wanted:
        return x
    _, _, steps, size = x.shape
    repeated = O.Expand(O.Unsqueeze(x, [2]), [1, 1, wanted // heads, 1, 1])
    return O.Reshape(repeated, [0, wanted, steps, size])


def _scores(q: Value, k: Value, scale: float | None) -> Value:
    """Returns scale q k'; each factor takes the root of the scale, which keeps half precision in range."""
    require_equal(q.shape[3], k.shape[3], "head sizes of q and k")
    scale = 1.0 / math.sqrt(int(q.shape[3])) if scale is None else scale
    root = math.sqrt(abs(scale))
    return (q * root) @ transposed(k * math.copysign(root, scale))


def _visible(scores: Value, past: Dim, count: Value | None, left: int, right: int) -> Value | None:
    """Returns which keys each query may see by their places, bools that broadcast to the scores; None for all."""
    queries, keys = int(scores.shape[2]), int(scores.shape[3])
    scores.builder.make(queries * keys + keys)
    ahead: Array = np.arange(keys) - np.arange(queries)[:, None]
    rules = []
    if count is None:
        distance = scores.builder.constant(ahead - int(past))
    else:
        require_rank(count, 1, 1)
        counts = O.Unsqueeze(O.Cast(count, to="int64"), [1, 2, 3])
        rules.append(O.Less(np.arange(keys), counts))
        distance = O.Sub(ahead + queries, counts)
    if right >= 0:
        rules.append(distance <= right)
    if left >= 0:
        rules.append(distance >= -left)
    return _all(rules)


def _all(rules: list[Value]) -> Value | None:
    result = None
    for rule in rules:
        result = rule if result is None else O.And(result, rule)
    return result


def _bias(scores: Value, mask: Value | None, visible: Value | None) -> Value | None:
    """Returns what is added to the scores: the mask, and minus infinity where something may not be attended to."""
    rules = [] if visible is None else [visible]
    added = None
    if mask is not None:
        boolean = mask.dtype.kind == "b"
        mask = _widened(mask if boolean else typed_like(mask, scores), scores.shape[3])
        if boolean:
            rules.append(mask)
        else:
            added = mask
    allowed = _all(rules)
    if allowed is None:
        return added
    hidden = O.Where(allowed, scores.like(0.0), scores.like(-math.inf))
    return hidden if added is None else hidden + added


def _widened(mask: Value, keys: Dim) -> Value:
    """Returns the mask for all keys: those past its end may not be attended to."""
    require_rank(mask, 1, 4)
    missing = int(keys) - int(mask.shape[-1])
    if missing <= 0:
        return mask
    nothing = False if mask.dtype.kind == "b" else -math.inf
    return O.Concat(mask, O.Expand(mask.like(nothing), [*mask.shape[:-1], missing]), axis=-1)


def _probabilities(scores: Value, bias: Value | None, precision: Any) -> Value:
    """Returns the Softmax over the keys, computed in the precision; 0 for a query whose bias hides all keys."""
    if bias is None:
        wide = scores
    else:
        nothing = O.Equal(O.ReduceMax(bias, [-1]), -math.inf)
        wide = O.Where(nothing, 0.0, scores)
    if precision is not None:
        wide = O.Cast(wide, to=precision)
        require(wide, "f")
    result = typed_like(O.Softmax(wide), scores)
    return result if bias is None else O.Where(nothing, 0.0, result)
