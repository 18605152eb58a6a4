"""Algebra on nodes as they are built: what a formula or a gradient rule writes down without being asked to be clever.

Each rule takes the inputs and attributes of a node and returns an equal value, or None to leave the node as it is. A
rule holds for every element to the bit, also for NaN, infinities and negative zero; it may only count on constants.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backwire_server.engine.graph import TensorType
from backwire_server.engine.narrow import is_narrow
from backwire_server.engine.values import O, Value

if TYPE_CHECKING:
    from backwire_server.engine.builder import Builder
    from backwire_server.engine.emitted import Emitted

Rule = Callable[..., Value | None]


def simplified(
    builder: "Builder", name: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any], type_: TensorType
) -> Value | None:
    """Returns a value that is equal to the node's only output, of the given type, if there is a simpler one."""
    rule = None if builder.abstract else _RULES.get(name)
    found = rule(builder, *inputs, **attributes) if rule else None
    return found if found is not None and found.type == type_ else None


def _origin(builder: "Builder", value: Value, op: str) -> "Emitted | None":
    """Returns the node that made the value, if it is of that operator."""
    node = builder.origins.get(value.name)
    return node if node is not None and node.op.name == op else None


def _filled(builder: "Builder", value: Value, number: float) -> bool:
    """Tells whether the value is a constant all of whose elements are this number, signs of zero included."""
    array = builder.constants.get(value.name)
    if array is None or not array.size:
        return False
    return bool((array == number).all()) and (number != 0 or not np.signbit(array).any() or array.dtype.kind in "biu")


def _mul(builder: "Builder", a: Value, b: Value) -> Value | None:
    if _filled(builder, b, 1):
        return a
    return b if _filled(builder, a, 1) else None


def _div(builder: "Builder", a: Value, b: Value) -> Value | None:
    return a if _filled(builder, b, 1) else None


def _sub(builder: "Builder", a: Value, b: Value) -> Value | None:
    return a if _filled(builder, b, 0) else None


def _neg(builder: "Builder", x: Value) -> Value | None:
    node = _origin(builder, x, "Neg")
    return Value(builder, node.inputs[0]) if node else None


def _where(builder: "Builder", condition: Value, a: Value, b: Value) -> Value | None:
    if a.name == b.name:
        return a
    if _filled(builder, b, 0):
        return O.Masked(a, condition)
    return O.Masked(b, O.Not(condition)) if _filled(builder, a, 0) else None


def _same(_: "Builder", x: Value, *__: Value | None, **___: Any) -> Value | None:
    return x  # if the type is the same, nothing happens


def _cast(builder: "Builder", x: Value, *, to: Any, **_: Any) -> Value | None:
    """Numbers of two bytes that were made wider before need not be made anew."""
    node = _origin(builder, x, "Cast")
    source = Value(builder, node.inputs[0]) if node else x
    widened = is_narrow(source.dtype) and x.dtype.kind == "f" and x.dtype.itemsize > 2
    return source if widened and to == source.dtype.name else x


def _reshape(builder: "Builder", x: Value, shape: Value, *, allowzero: int) -> Value | None:
    """What was reshaped, squeezed or unsqueezed before need not be, unless the target shape refers to that."""
    absolute = -1 not in shape.known and (allowzero or 0 not in shape.known)
    node = next(filter(None, (_origin(builder, x, name) for name in _RESHAPING)), None)
    if node is not None and absolute:
        return O.Reshape(Value(builder, node.inputs[0]), shape, allowzero=1)
    return x


def _transpose(builder: "Builder", x: Value, *, perm: tuple[int, ...] | None) -> Value | None:
    order = perm or tuple(reversed(range(x.rank)))
    if order == tuple(range(x.rank)):
        return x
    copied = _origin(builder, x, "Copy")
    if node := _origin(builder, Value(builder, copied.inputs[0]) if copied else x, "Transpose"):
        before: Any = node.attributes["perm"] or tuple(reversed(range(x.rank)))
        return O.Transpose(Value(builder, node.inputs[0]), perm=tuple(before[axis] for axis in order))
    swapped = (*range(x.rank - 2), x.rank - 1, x.rank - 2)
    if x.rank >= 2 and order == swapped and (node := _origin(builder, x, "MatMul")):
        a, b = (Value(builder, name) for name in node.inputs)
        if a.rank >= 2 and b.rank >= 2:
            return O.MatMul(_swapped(b), _swapped(a))
    return None


def _swapped(x: Value) -> Value:
    return O.Transpose(x, perm=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_RULES: dict[str, Rule] = {
    "Mul": _mul,
    "Div": _div,
    "Sub": _sub,
    "Neg": _neg,
    "Where": _where,
    "Expand": _same,
    "Cast": _cast,
    "Squeeze": _same,
    "Reshape": _reshape,
    "Transpose": _transpose,
}
