"""Recurrent layers, which read sequences [batch, time, features] step by step, both ways and in several layers.

A layer has for each direction, the i-th (from 0) forwards as `name/i/...` and backwards as `name/i/reversed/...`:
`weight` [gates·units, features], by default `GlorotUniform()`, `recurrent` [gates·units, units], by default
`Orthogonal()`, and `bias` [gates·units]. Their rows are in the order in which ONNX has the gates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backwire import _functions_math, _functions_nn, _functions_shape, _shapes
from backwire._declare import parameter
from backwire._errors import DTypeError, InvalidRequestError, ShapeError
from backwire._initializers import GlorotUniform, Initializer, Orthogonal, Zeros
from backwire._layers import known_size
from backwire._value import AttributeValue, Node, Value, as_constant, require_float


def rnn(
    x: Value,
    units: int,
    *,
    name: str,
    layers: int = 1,
    bidirectional: bool = False,
    activation: Literal["tanh", "relu"] = "tanh",
    dropout: float = 0.0,
    lengths: Value | None = None,
    state: Value | None = None,
    initializer: Initializer | None = None,
    recurrent_initializer: Initializer | None = None,
) -> tuple[Value, Value]:
    """Returns h' = activation(W x + R h + b) for each step, and the last h of every layer (Elman 1990).

    The first is [batch, time, units], or [batch, time, 2·units] if bidirectional; the second [layers, batch, units],
    or [2·layers, batch, units], each layer's forward direction first.

    Args:
        x: The sequences, [batch, time, features].
        units: The size of the state.
        name: What its parameters are called by; the module says how. There is one gate.
        layers: How many layers there are, each reading what the one before returns.
        bidirectional: Whether each layer reads the sequence backwards, too.
        activation: `"tanh"` or `"relu"`.
        dropout: The rate of dropout between layers.
        lengths: Integers [batch]: how many steps of each sequence count. States stop there, and outputs are 0 after.
        state: The states to begin with, of the shape of the second result; None for zeros.
        initializer: How `weight` begins.
        recurrent_initializer: How `recurrent` begins.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> outputs, state = bw.rnn(words, 32, name="reader", bidirectional=True)
        >>> outputs.shape, state.shape
        (('batch', 20, 64), (2, 'batch', 32))
    """
    if activation not in ("tanh", "relu"):
        raise InvalidRequestError(f"rnn {name!r}: activation={activation!r} is unknown; use 'tanh' or 'relu'")
    functions = [activation.capitalize()] * (2 if bidirectional else 1)
    cell = _Cell("RNN", 1, _rules(initializer, recurrent_initializer), {"activations": functions})
    stack = _Stack(cell, name, x, units, layers, bidirectional, dropout, lengths)
    outputs, (last,) = stack.run([state])
    return outputs, last


def gru(
    x: Value,
    units: int,
    *,
    name: str,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    lengths: Value | None = None,
    state: Value | None = None,
    initializer: Initializer | None = None,
    recurrent_initializer: Initializer | None = None,
) -> tuple[Value, Value]:
    """Returns h' = (1 - z)·tanh(W x + b + r·(R h + c)) + z·h for each step, and the last h of every layer.

    The gates z and r are σ(W x + R h + b + c) with rows of their own (Cho et al. 2014, with the reset after the
    product, as in PyTorch). The rows are in the order z, r, h; besides `bias`, b, there is `recurrent_bias`, c. Shapes
    and arguments are those of `bw.rnn`.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> outputs, state = bw.gru(words, 32, name="reader", layers=2, dropout=0.1)
        >>> outputs.shape, state.shape
        (('batch', 20, 32), (2, 'batch', 32))
    """
    rules = _rules(initializer, recurrent_initializer)
    cell = _Cell("GRU", 3, rules, {"linear_before_reset": 1}, recurrent_bias=True)
    stack = _Stack(cell, name, x, units, layers, bidirectional, dropout, lengths)
    outputs, (last,) = stack.run([state])
    return outputs, last


def lstm(
    x: Value,
    units: int,
    *,
    name: str,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    lengths: Value | None = None,
    state: tuple[Value, Value] | None = None,
    forget_bias: float = 1.0,
    initializer: Initializer | None = None,
    recurrent_initializer: Initializer | None = None,
) -> tuple[Value, Value, Value]:
    """Returns h' = o·tanh(c') with c' = f·c + i·tanh(W x + R h + b) for each step, and the last h and c of every layer.

    The gates i, o and f are σ(W x + R h + b) with rows of their own (Hochreiter and Schmidhuber 1997; Gers et al.
    2000). The rows are in the order i, o, f, c. The biases of f begin as `forget_bias`, so that the cell remembers
    (Jozefowicz et al. 2015); the others as 0. `state` is a pair of h and c. Shapes and other arguments are those of
    `bw.rnn`.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> outputs, state, cell = bw.lstm(words, 32, name="reader")
        >>> outputs.shape, state.shape, cell.shape
        (('batch', 20, 32), (1, 'batch', 32), (1, 'batch', 32))
    """
    rules = _rules(initializer, recurrent_initializer)
    cell = _Cell("LSTM", 4, rules, {}, states=2, forget_bias=forget_bias)
    stack = _Stack(cell, name, x, units, layers, bidirectional, dropout, lengths)
    outputs, (last, memory) = stack.run(list(state or (None, None)))
    return outputs, last, memory


@dataclass(frozen=True, slots=True)
class _Cell:
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
class _Stack:
    """Layers over each other that read one batch of sequences."""

    cell: _Cell
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


def _rules(weight: Initializer | None, recurrent: Initializer | None) -> tuple[Initializer, Initializer]:
    return weight or GlorotUniform(), recurrent or Orthogonal()


def _fits(shape: Sequence[_shapes.Dim], wanted: Sequence[_shapes.Dim]) -> bool:
    return len(shape) == len(wanted) and all(map(_shapes.may_equal, shape, wanted))
