"""A node in a builder, and what its kernel makes of arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backwire_server.engine.geometry import Order, order_of
from backwire_server.engine.graph import Array, Attribute
from backwire_server.engine.operators import N_OUTPUTS, Op, takes_n_outputs

Outlined = Sequence[Array | None]
"""Arrays whose geometry counts, not their elements."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """A node in a builder, with its attributes complete and, for an operator of several outputs, all of them.

    `label` and `of` are the label and the operator of the graph's node that it is part of, for messages. `owner` is the
    first output of that node, or of the one that it belongs to the gradient of; empty for what belongs to none, such as
    a sum of gradients.
    """

    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    label: str
    owner: str = ""
    of: str = ""

    @property
    def described(self) -> str:
        """What messages call this node: by the operator that its graph names, where an inner one only helps that."""
        return f"{self.of or self.op.name} node {self.label!r}"


def views_of(node: Emitted, arrays: Sequence[Array | None]) -> tuple[Array, ...]:
    """Returns the outputs of a node that returns views of its first input, whose elements may be anything."""
    assert node.op.kernel is not None
    extra = {N_OUTPUTS: len(node.outputs)} if takes_n_outputs(node.op.kernel) else {}
    views = node.op.kernel(*arrays, **node.attributes, **extra)
    return views if isinstance(views, tuple) else (views,)


def run_kernel(node: Emitted, arrays: Sequence[Array | None]) -> tuple[Array, ...]:
    """Computes a node's outputs; raises EngineError when an element is not acceptable."""
    kernel = node.op.kernel
    assert kernel is not None
    extra = {N_OUTPUTS: len(node.outputs)} if takes_n_outputs(kernel) else {}
    results = kernel(*arrays, **node.attributes, **extra)
    results = results if isinstance(results, tuple) else (results,)
    return tuple(np.asarray(result) for result in results[: len(node.outputs)])


def order_of_result(node: Emitted, arrays: Outlined, shape: tuple[int, ...], is_prepared: bool) -> Order | None:
    """Returns how a result lies in memory: as the operator says, or like an input of an elementwise one."""
    if node.op.order is not None and is_prepared:
        order: Order | None = node.op.order(*arrays, **node.attributes)
        return order
    if not node.op.elementwise:
        return None
    orders = (order_of(array) for array in arrays if array is not None and array.shape == shape)
    return next((order for order in orders if order is not None), None)
