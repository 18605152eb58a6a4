"""Mixed precision: products of float32 from operands of two bytes, all else in float32 (Micikevicius et al. 2018).

Within an operator of `LOWERED`, each product of float32 values becomes a product of those values cast to the precision
of the graph, whose result is cast back. Types outside are as before, and so are parameters. Gradients need no rule of
their own: that of a product is made of products of the same types, and that of a Cast is a Cast.
"""

from collections.abc import Sequence

from backwire_server.engine.graph import DType
from backwire_server.engine.narrow import HALF, SINGLE
from backwire_server.engine.values import O, Value

LOWERED = frozenset(
    {"Attention", "Conv", "ConvTranspose", "Einsum", "FlexAttention", "Gemm", "GRU", "LSTM", "MatMul", "RNN"}
)
"""The operators of graphs whose products are lowered. Others multiply what must not be rounded: coordinates, the
weights of an interpolation."""

PRODUCTS = frozenset({"Contraction", "Convolution", "ConvolutionInputGradient", "MatMul"})
"""The operators that these are made of, and that are linear in each input."""


def needs_scale(precision: DType) -> bool:
    """Tells whether gradients should be computed of a multiple of the loss, so that they do not vanish.

    bfloat16 has the exponents of float32: what float32 can hold does not vanish in it.
    """
    return precision == HALF


def is_lowered(name: str, inputs: Sequence[Value | None]) -> bool:
    """Tells whether an operator within one of LOWERED is computed in the precision of the graph."""
    return name in PRODUCTS and any(value is not None and value.dtype == SINGLE for value in inputs)


def lowered(inputs: Sequence[Value | None], precision: DType) -> list[Value | None]:
    """Returns the inputs with those of float32 in the precision."""
    return [value and (O.Cast(value, to=precision.name) if value.dtype == SINGLE else value) for value in inputs]


def raised(results: Sequence[Value]) -> tuple[Value, ...]:
    """Returns the results in float32."""
    return tuple(O.Cast(value, to=SINGLE.name) for value in results)
