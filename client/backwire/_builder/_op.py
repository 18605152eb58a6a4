"""The way to every operator that the server has, also to those that have no function here."""

from collections.abc import Mapping, Sequence

from numpy.typing import DTypeLike

from backwire import _arrays
from backwire._builder._node import AttributeValue, Node
from backwire._builder._shapes import Dim
from backwire._builder._value import Operand, Value, as_constant
from backwire._errors import GraphError


def op(
    name: str,
    *inputs: Operand | None,
    attributes: Mapping[str, AttributeValue] | None = None,
    dtype: DTypeLike | None = None,
    shape: Sequence[Dim] | None = None,
    outputs: int = 1,
) -> tuple[Value, ...]:
    """Applies an operator of the ONNX operator set by its name and returns its outputs.

    The server checks it; the client knows only what it is told here.

    Args:
        name: The ONNX name, such as `Gemm`.
        inputs: Values, or arrays, which become constants as by `bw.constant`; None leaves out an optional input.
        attributes: The attributes by their ONNX names: numbers, texts, lists of them, or arrays.
        dtype: The element type of the outputs; by default that of the first input.
        shape: The shape of the outputs; by default unknown.
        outputs: How many outputs the node has.

    Example:
        >>> a, b = bw.input("a", (2, 3)), bw.input("b", (4, 3))
        >>> (y,) = bw.op("Gemm", a, b, attributes={"transB": 1}, shape=(2, 4))
    """
    values = [item if isinstance(item, Value) or item is None else as_constant(item) for item in inputs]
    first = next((value.dtype for value in values if value is not None), None)
    wanted = first if dtype is None else dtype
    if wanted is None:
        raise GraphError(f"{name}: without inputs its dtype is unknown; pass dtype=")
    kind = _arrays.dtype_of(wanted)
    node = Node(name, tuple(values), dict(attributes or {}), outputs=outputs)
    dims = None if shape is None else tuple(shape)
    return tuple(Value(node, kind, dims, index=index) for index in range(outputs))
