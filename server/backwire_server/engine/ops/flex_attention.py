"""FlexAttention."""

from typing import Any

from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import require_rank
from backwire_server.engine.values import O, Value


@function(
    "FlexAttention",
    samples=[
        case(F(1, 2, 2, 2), F(1, 1, 3, 2), F(1, 1, 3, 1)),
        case(F(1, 1, 2, 2), F(1, 1, 2, 2), F(1, 1, 2, 2), scale=0.3, softmax_precision="float64"),
    ],
)
def flex_attention(q: Value, k: Value, v: Value, *, scale: float | None = None, softmax_precision: Any = None) -> Value:
    """Softmax(scale q k') v for each head (Dong et al. 2024); scale is 1 / sqrt(head size) if not given.

    q is [N, heads, steps, size], and each head of k and v serves as many of q. The scores are of `softmax_precision`,
    float32 if not given, or float64 for such inputs. Graphs that change scores or probabilities (score_mod, prob_mod)
    are not supported: make the scores with MatMul and Softmax.
    """
    for value in (q, k, v):
        require_rank(value, 4, 4)
    return O.Attention(q, k, v, scale=scale, softmax_precision=softmax_precision)
