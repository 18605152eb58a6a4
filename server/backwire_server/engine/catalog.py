"""What operators there are, for people and programs that build graphs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from backwire_server.engine import ops as _ops  # noqa: F401  # fills the operator table
from backwire_server.engine.builder import Builder
from backwire_server.engine.differentiate import differentiate, is_float
from backwire_server.engine.errors import NotDifferentiable
from backwire_server.engine.graph import GRADIENT, TensorType
from backwire_server.engine.operators import REQUIRED, Op
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample
from backwire_server.engine.values import Value


@dataclass(frozen=True, slots=True)
class Entry:
    """An operator that a graph may name.

    `inputs` says of each one whether it may be left out; `attributes` are their defaults, REQUIRED where there is none
    and None where absence means something else; `outputs` is the most there can be, 0 for as many as the node names.
    """

    name: str
    doc: str
    inputs: Mapping[str, bool]
    variadic: bool
    attributes: Mapping[str, Any]
    outputs: int
    differentiable: bool


_GRADIENT = Entry(
    GRADIENT,
    "The gradient of the value `y` by each of the values `xs`, which are among the inputs; the other inputs, `zs`, are "
    "those that y depends on besides. A y of several elements is differentiated as its sum.",
    inputs={},
    variadic=True,
    attributes={"xs": REQUIRED, "y": REQUIRED, "zs": None},
    outputs=0,
    differentiable=True,
)


@cache
def catalog() -> tuple[Entry, ...]:
    """Returns all operators that are not internal, sorted by name."""
    entries = [_entry(op) for op in OPS.values() if not op.internal]
    return tuple(sorted([*entries, _GRADIENT], key=lambda entry: entry.name))


def _entry(op: Op) -> Entry:
    required = len(op.inputs) - op.optional
    inputs = {name: index >= required for index, name in enumerate(op.inputs)}
    attributes = dict(sorted(op.attributes.items()))
    return Entry(op.name, op.doc, inputs, op.variadic, attributes, op.outputs, _differentiable(op))


def _differentiable(op: Op) -> bool:
    """Tells whether a gradient flows, which for a function of other operators its samples show."""
    if op.expand is None:
        return op.gradient is not None
    return any(_flows(op, sample) for sample in op.samples)


def _flows(op: Op, sample: Sample) -> bool:
    builder = Builder(training=True)
    inputs: list[Value | None] = []
    leaves: list[str] = []
    for index, array in enumerate(sample.inputs):
        if array is not None and is_float(array.dtype) and index not in sample.static:
            leaves.append(f"x{index}")
            inputs.append(builder.leaf(leaves[-1], TensorType(array.dtype, array.shape)))
        else:
            inputs.append(None if array is None else builder.constant(array))
    outputs = builder.emit(op.name, inputs, sample.attributes, sample.n_outputs)
    seeds = {y.name: builder.constant(np.ones(y.sizes, y.dtype)) for y in outputs if is_float(y.dtype)}
    try:
        return any(gradient is not None for gradient in differentiate(builder, seeds, leaves).values())
    except NotDifferentiable:
        return False
