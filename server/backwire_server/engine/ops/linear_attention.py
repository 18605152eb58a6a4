"""Linear attention, unrolled over the steps, and the causal convolution that goes before it."""

import math

from backwire_server.engine.errors import GraphError, InvalidAttribute
from backwire_server.engine.ops.attention import heads_apart, spread, typed_like
from backwire_server.engine.ops.linear import transposed
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import common_dtype, require_equal, require_rank
from backwire_server.engine.values import O, Value

USES_DECAY = {"linear": False, "gated": True, "delta": False, "gated_delta": True}
USES_BETA = {"linear": False, "gated": False, "delta": True, "gated_delta": True}
ACTIVATIONS = ("none", "silu", "swish")


@function(
    "LinearAttention",
    outputs=2,
    samples=[
        case(F(1, 2, 2), F(1, 2, 1), F(1, 2, 2), q_num_heads=2, kv_num_heads=1, update_rule="linear", n_outputs=2),
        case(
            *(F(1, 2, 2), F(1, 2, 2), F(1, 2, 1), F(1, 1, 2, 1), F(1, 2, 2, high=0.0), F(1, 2, 1)),
            q_num_heads=1,
            kv_num_heads=1,
            n_outputs=2,
        ),
        case(F(1, 2, 2), F(1, 2, 2), F(1, 2, 2), None, F(1, 2, 2), q_num_heads=2, kv_num_heads=2, update_rule="gated"),
        case(
            *(F(1, 2, 2), F(1, 2, 2), F(1, 2, 2), None, None, F(1, 2, 1)),
            q_num_heads=2,
            kv_num_heads=2,
            update_rule="delta",
            scale=0.5,
        ),
    ],
)
def linear_attention(
    query: Value,
    key: Value,
    value: Value,
    past_state: Value | None = None,
    decay: Value | None = None,
    beta: Value | None = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[Value, Value]:
    """scale q' S for each head and step, where S becomes S + k v' first (Katharopoulos et al. 2020).

    Query, key and value are [N, steps, heads size]; each of `kv_num_heads` heads of S [N, heads, key size, value size]
    serves as many heads of the query. Rules with `gated` multiply S by e^decay before, decay [N, steps, heads] or
    [N, steps, heads key size]. Rules with `delta` take beta (v - S' k) for v, beta [N, steps, heads or 1] (Yang et al.
    2024). The scale is 1 / sqrt(key size) where it is 0. Half precision is computed in float32. `chunk_size` has no
    effect on the result. The second output is S after the last step, in the type of `past_state`.
    """
    _check_rule(update_rule, decay, beta)
    for each in (query, key, value):
        require_rank(each, 3, 3)
    common_dtype([query, key, value], "f")
    q, k, v = (
        _wide(heads_apart(each, count, prefix))
        for each, count, prefix in ((query, q_num_heads, "q"), (key, kv_num_heads, "kv"), (value, kv_num_heads, "kv"))
    )
    require_equal(q.shape[3], k.shape[3], "head sizes of query and key")
    scale = scale or 1.0 / math.sqrt(int(q.shape[3]))
    decays = None if decay is None else _steps(O.Exp(_wide(heads_apart(decay, kv_num_heads, "kv"))))
    betas = None if beta is None else _steps(_wide(O.Unsqueeze(O.Transpose(beta, perm=(0, 2, 1)), [3])))
    if past_state is None:
        state = O.Expand(k.like(0.0), [*k.shape[:2], k.shape[3], v.shape[3]])
    else:
        state = typed_like(past_state, k)
    results, state = _recurrence(q * scale, k, v, state, decays, betas)
    joined = O.Reshape(O.Transpose(results, perm=(0, 2, 1, 3)), [0, 0, -1])
    return typed_like(joined, query), typed_like(state, query if past_state is None else past_state)


def _recurrence(
    q: Value, k: Value, v: Value, state: Value, decays: list[Value] | None, betas: list[Value] | None
) -> tuple[Value, Value]:
    """Returns what q reads from the state after each step, [N, heads, steps, value size], and the last state."""
    results = []
    for step, (query, key, value) in enumerate(zip(_steps(q), _steps(k), _steps(v), strict=True)):
        if decays is not None:
            state = state * transposed(decays[step])
        written = value if betas is None else betas[step] * (value - key @ state)
        state = state + transposed(key) @ written
        results.append(query @ spread(state, q))
    return O.Concat(*results, axis=2), state


def _check_rule(rule: str, decay: Value | None, beta: Value | None) -> None:
    if rule not in USES_DECAY:
        raise InvalidAttribute(f"update_rule is {rule!r}; use one of {', '.join(USES_DECAY)}")
    for name, value, used in (("decay", decay, USES_DECAY[rule]), ("beta", beta, USES_BETA[rule])):
        if (value is not None) != used:
            remedy = f"needs {name}; give it" if used else f"takes no {name}; leave it out"
            raise GraphError(f"update_rule {rule!r} {remedy}")


def _wide(x: Value) -> Value:
    return O.Cast(x, to="float32") if x.dtype.itemsize < 4 else x


def _steps(x: Value) -> list[Value]:
    """Returns x [N, heads, steps, size] step by step, each [N, heads, 1, size]."""
    return list(O.Split(x, axis=2, n_outputs=int(x.shape[2])))


@function(
    "CausalConvWithState",
    outputs=2,
    samples=[
        case(F(1, 2, 3), F(2, 1, 2), F(2), n_outputs=2),
        case(F(2, 2, 2), F(2, 1, 3), None, F(2, 2, 2), activation="silu", n_outputs=2),
        case(F(1, 1, 2), F(1, 1, 1)),
    ],
)
def causal_conv_with_state(
    x: Value, weight: Value, bias: Value | None = None, past_state: Value | None = None, *, activation: str = "none"
) -> tuple[Value, Value]:
    """Each channel of x [N, C, steps] convolved with its kernel in the weight [C, 1, k], looking only backwards.

    Before the first step come the k - 1 steps of `past_state` [N, C, k - 1], or zeros; the second output is the last
    k - 1 steps of all, for the next call. With the activation `silu` or `swish` the result y becomes y Sigmoid(y).
    """
    if activation not in ACTIVATIONS:
        raise InvalidAttribute(f"activation is {activation!r}; use one of {', '.join(ACTIVATIONS)}")
    require_rank(x, 3, 3)
    require_rank(weight, 3, 3)
    before = int(weight.shape[2]) - 1
    if past_state is None:
        past_state = O.Expand(x.like(0.0), [*x.shape[:2], before])
    require_equal(past_state.shape[-1], before, "the steps of past_state and those of the kernel less one")
    joined = O.Concat(past_state, x, axis=2)
    y = O.Conv(joined, weight, bias, group=int(x.shape[1]))
    length = joined.shape[2]
    kept = O.Slice(joined, [int(length) - before], [length], [2])
    return (y if activation == "none" else y * O.Sigmoid(y)), kept
