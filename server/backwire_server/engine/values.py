"""Values of a graph under construction: what shape rules, functions and gradient rules compute with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from backwire_server.engine.dims import Shape, concrete, show
from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.graph import Array, Attribute, DType, TensorType
from backwire_server.engine.registry import lookup

if TYPE_CHECKING:
    from backwire_server.engine.builder import Builder

MOST_EMPTY = 65_536
"""The most places that an array without elements may have, were its empty axes of size 1."""


class NeedsValue(Exception):
    """A type depends on the elements of these values, which are not known before run time."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(", ".join(names))
        self.names = frozenset(names)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value in a builder, with operators that add nodes to it."""

    builder: "Builder"
    name: str

    @property
    def type(self) -> TensorType:
        """The type; raises NeedsValue when it is not known."""
        found = self.builder.types[self.name]
        if found is None:
            raise NeedsValue([self.name])
        return found

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        """The shape; dimensions may be symbolic."""
        return self.type.shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape in ints; raises UnknownDimension when a dimension is symbolic."""
        return concrete(self.type.shape)

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.type.shape)

    @property
    def known(self) -> Array:
        """The elements; raises NeedsValue when they are not known before run time.

        Raises ShapeMismatch for none in a large shape: lists of them would be made of as many empty lists.
        """
        if self.name not in self.builder.known:
            raise NeedsValue([self.name])
        array = self.builder.known[self.name]
        if not array.size and prod(filter(None, array.shape)) > MOST_EMPTY:
            raise ShapeMismatch(f"shape {show(array.shape)} has no elements; give some, or a smaller shape")
        return array

    def like(self, number: "Operand") -> "Value":
        """Returns a Python number as a constant of this value's dtype, and a Value as it is."""
        return number if isinstance(number, Value) else self.builder.constant(np.asarray(number, self.dtype))

    def __add__(self, other: "Operand") -> "Value":
        return O.Add(self, self.like(other))

    def __sub__(self, other: "Operand") -> "Value":
        return O.Sub(self, self.like(other))

    def __mul__(self, other: "Operand") -> "Value":
        return O.Mul(self, self.like(other))

    def __truediv__(self, other: "Operand") -> "Value":
        return O.Div(self, self.like(other))

    def __pow__(self, other: "Operand") -> "Value":
        return O.Pow(self, self.like(other))

    def __radd__(self, other: float) -> "Value":
        return O.Add(self.like(other), self)

    def __rsub__(self, other: float) -> "Value":
        return O.Sub(self.like(other), self)

    def __rmul__(self, other: float) -> "Value":
        return O.Mul(self.like(other), self)

    def __rtruediv__(self, other: float) -> "Value":
        return O.Div(self.like(other), self)

    def __matmul__(self, other: "Value") -> "Value":
        return O.MatMul(self, other)

    def __neg__(self) -> "Value":
        return O.Neg(self)

    def __lt__(self, other: "Operand") -> "Value":
        return O.Less(self, self.like(other))

    def __le__(self, other: "Operand") -> "Value":
        return O.LessOrEqual(self, self.like(other))

    def __gt__(self, other: "Operand") -> "Value":
        return O.Greater(self, self.like(other))

    def __ge__(self, other: "Operand") -> "Value":
        return O.GreaterOrEqual(self, self.like(other))


Operand = Value | float


class Operators:
    """`O.Exp(x)` adds an Exp node to the builder of x and returns its output; any operator works the same way.

    Python numbers become constants of the dtype of the first floating-point argument (else of the first one), lists and
    tuples become int64 constants, None leaves out an optional input. Operators with several outputs return a tuple when
    `n_outputs` asks for more than one or their number varies.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, n_outputs: int | None = None, **attributes: Attribute) -> Any:
            values = [each for each in arguments if isinstance(each, Value)]
            builder = values[0].builder
            model = next((each for each in values if each.dtype.kind not in "biu"), values[0])
            inputs = [_operand(builder, model, argument) for argument in arguments]
            count = n_outputs or (1 if lookup(name).outputs else None)
            results = builder.emit(name, inputs, attributes, count)
            return results[0] if n_outputs is None and lookup(name).outputs else results

        return call


def _operand(builder: "Builder", model: Value, argument: Any) -> Value | None:
    if argument is None or isinstance(argument, Value):
        return argument
    if isinstance(argument, np.ndarray | np.generic):
        return builder.constant(np.asarray(argument))
    if isinstance(argument, list | tuple):
        return builder.constant(np.array(concrete(argument), np.int64))
    return model.like(argument)


O = Operators()  # noqa: E741
