"""Stacks of recurrent cells: what the recurrent layers share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backwire._builder import _functions_math, _functions_nn, _functions_shape, _shapes
from backwire._builder._declare import parameter
from backwire._builder._initializers import Initializer, Zeros
from backwire._builder._layers import known_size
from backwire._builder._node import AttributeValue, Node
from backwire._builder._value import Value, as_constant, require_float
from backwire._errors import DTypeError, InvalidRequestError, ShapeError


@dataclass(frozen=True, slots=True)
class Cell:
    """What distinguishes the three: the operator, its gates and how its parameters begin."""

    op: str
    gates: int
    rules: tuple[Initializer, Initializer]
    attributes: dict[str, AttributeValue]
    states: int = 1
    recurrent_bias: bool = False
    forget_bias: float = 0.0

    def weights(self, name: str, x: Value, features: int, units: int) -> list[Value]:
        """Declares the parameters of one direction of one layer; returns W, R and both biases in one, as ONNX has them.

        Only the second bias of a GRU is a parameter, since the others just add up with the first.
        """
        rows = self.gates * units
        w = parameter(f"{name}/weight", (rows, features), initializer=self.rules[0], unit_axis=0, dtype=x.dtype)
        r = parameter(f"{name}/recurrent", (rows, units), initializer=self.rules[1], unit_axis=0, dtype=x.dtype)
        if self.forget_bias:
            begin = np.zeros(rows, np.float32)
            begin[2 * units : 3 * units] = self.forget_bias
            bias = parameter(f"{name}/bias", begin, dtype=x.dtype)
        else:
            bias = parameter(f"{name}/bias", (rows,), initializer=Zeros(), dtype=x.dtype)
        second = as_constant(np.zeros(rows), x.dtype)
        if self.recurrent_bias:
            second = parameter(f"{name}/recurrent_bias", (rows,), initializer=Zeros(), dtype=x.dtype)
        return [w, r, _functions_shape.concat([bias, second])]


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers over each other that read one batch of sequences."""

    cell: Cell
    name: str
    x: Value
    units: int
    layers: int
    bidirectional: bool
    dropout: float
    lengths: Value | None

    def __post_init__(self) -> None:
        require_float(self.what, self.x)
        if _shapes.rank_of(self.what, self.x.shape) != 3:
            raise ShapeError(f"{self.what}: {self.x!r} is no batch of sequences; reshape it to [batch, time, features]")
        if min(self.units, self.layers) < 1:
            raise InvalidRequestError(f"{self.what}: units={self.units}, layers={self.layers}; both must be 1 or more")
        if self.lengths is not None and self.lengths.dtype.kind not in "iu":
            raise DTypeError(f"{self.what}: lengths {self.lengths!r} must be integers; use bw.cast(value, 'int32')")

    @property
    def what(self) -> str:
        """What errors call the layer."""
        return f"{self.cell.op.lower()} {self.name!r}"

    @property
    def directions(self) -> int:
        """How many ways each layer reads."""
        return 2 if self.bidirectional else 1

    def run(self, states: Sequence[Value | None]) -> tuple[Value, list[Value]]:
        """Returns [batch, time, ...] and each of the last states of all layers."""
        h = _functions_shape.transpose(self.x, (1, 0, 2))
        lengths = None if self.lengths is None else _functions_math.cast(self.lengths, "int32")
        starts = [self._start(state) for state in states]
        ends: list[list[Value]] = [[] for _ in states]
        for layer in range(self.layers):
            if layer and self.dropout:
                h = _functions_nn.dropout(h, self.dropout)
            h, last = self._layer(layer, h, lengths, [start[layer] for start in starts])
            for collected, value in zip(ends, last, strict=True):
                collected.append(value)
        return _functions_shape.transpose(h, (1, 0, 2)), [_functions_shape.concat(each) for each in ends]

    def _start(self, state: Value | None) -> Sequence[Value | None]:
        if state is None:
            return [None] * self.layers
        wanted = (self.layers * self.directions, (self.x.shape or ())[0], self.units)
        if state.shape is not None and not _fits(state.shape, wanted):
            raise ShapeError(f"{self.what}: the state {state!r} must be {_shapes.show(wanted)}; reshape it")
        return _functions_shape.split(state, [self.directions] * self.layers) if self.layers > 1 else [state]

    def _layer(
        self, layer: int, h: Value, lengths: Value | None, starts: list[Value | None]
    ) -> tuple[Value, list[Value]]:
        scope = f"{self.name}/{layer}"
        names = [scope, f"{scope}/reversed"][: self.directions]
        features = known_size(self.what, h, 2)
        each = [self.cell.weights(name, self.x, features, self.units) for name in names]
        weights = [_functions_shape.stack(parts) for parts in zip(*each, strict=True)]
        direction = "bidirectional" if self.bidirectional else "forward"
        attributes = {"hidden_size": self.units, "direction": direction, **self.cell.attributes}
        inputs = (h, *weights, lengths, *starts)
        node = Node(self.cell.op, inputs, attributes, scope, outputs=1 + self.cell.states)
        steps, batch, _ = h.shape or (None, None, None)
        y = Value(node, h.dtype, (steps, self.directions, batch, self.units))
        last = (self.directions, batch, self.units)
        states = [Value(node, h.dtype, last, index=index + 1) for index in range(self.cell.states)]
        return _side_by_side(y), states


def _side_by_side(y: Value) -> Value:
    """Returns [time, directions, batch, units] as [time, batch, directions·units]."""
    steps, directions, batch, units = y.shape or ()
    if directions == 1:
        return _functions_shape.squeeze(y, 1)
    assert isinstance(units, int)
    return _functions_shape.reshape(_functions_shape.transpose(y, (0, 2, 1, 3)), (steps, batch, 2 * units))


def _fits(shape: Sequence[_shapes.Dim], wanted: Sequence[_shapes.Dim]) -> bool:
    return len(shape) == len(wanted) and all(map(_shapes.may_equal, shape, wanted))
