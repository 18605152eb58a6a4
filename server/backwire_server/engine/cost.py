"""What a computation takes, worked out from types alone."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod

from backwire_server.engine.dims import concrete
from backwire_server.engine.emitted import Emitted
from backwire_server.engine.graph import TensorType

Types = Mapping[str, TensorType | None]


@dataclass(frozen=True, slots=True)
class Cost:
    """The floating-point operations of a computation, and the most bytes that it holds at any moment while it runs."""

    flops: int
    nbytes: int


Admit = Callable[[Cost], None]
"""Told what a computation takes before any memory is taken for it; raises what it raises when that is too much."""


def admit_all(_: Cost) -> None:
    """Lets everything in."""


def flops(nodes: Iterable[Emitted], types: Types) -> int:
    """Returns the floating-point operations of nodes: by formula for products, else one for each element they make.

    A product of matrices, and a convolution and its gradients, count two for each multiplication.
    """
    return sum(_flops(node, types) for node in nodes)


def flops_by_owner(nodes: Iterable[Emitted], types: Types) -> dict[str, int]:
    """Returns those of the nodes of each owner."""
    found: dict[str, int] = defaultdict(int)
    for node in nodes:
        found[node.owner] += _flops(node, types)
    return found


def element_count(type_: TensorType | None) -> int:
    """Returns the elements of a value whose shape is known; none of one that is left out."""
    return prod(concrete(type_.shape)) if type_ else 0


def nbytes(type_: TensorType | None) -> int:
    """Returns the bytes of a value whose shape is known."""
    return element_count(type_) * type_.dtype.itemsize if type_ else 0


def _flops(node: Emitted, types: Types) -> int:
    if node.op.name in _MULTIPLICATIONS:
        of = [types[name] for name in (*node.inputs, *node.outputs)]
        return 2 * _MULTIPLICATIONS[node.op.name](*of)
    return sum(element_count(types[name]) for name in node.outputs)


def _kernel(type_: TensorType) -> int:
    """The multiplications for one element of a convolution's result, of kernels [M, C/group, k1, ...]."""
    return prod(concrete(type_.shape[1:]))


_MULTIPLICATIONS: Mapping[str, Callable[..., int]] = {
    "MatMul": lambda a, b, y: element_count(y) * concrete(a.shape)[-1],  # noqa: ARG005
    "Convolution": lambda x, w, y: element_count(y) * _kernel(w),  # noqa: ARG005
    "ConvolutionInputGradient": lambda g, w, x: element_count(g) * _kernel(w),  # noqa: ARG005
    "ConvolutionKernelGradient": lambda x, g, w: element_count(g) * _kernel(w),  # noqa: ARG005
}
