"""Recurrent layers, which read sequences [batch, time, features] step by step, both ways and in several layers.

A layer has for each direction, the i-th (from 0) forwards as `name/i/...` and backwards as `name/i/reversed/...`:
`weight` [gates·units, features], by default `GlorotUniform()`, `recurrent` [gates·units, units], by default
`Orthogonal()`, and `bias` [gates·units]. Their rows are in the order in which ONNX has the gates.
"""

from typing import Literal

from backwire._builder._initializers import GlorotUniform, Initializer, Orthogonal
from backwire._builder._recurrent import Cell, Stack
from backwire._builder._value import Value
from backwire._errors import InvalidRequestError


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
    cell = Cell("RNN", 1, _rules(initializer, recurrent_initializer), {"activations": functions})
    stack = Stack(cell, name, x, units, layers, bidirectional, dropout, lengths)
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
    cell = Cell("GRU", 3, rules, {"linear_before_reset": 1}, recurrent_bias=True)
    stack = Stack(cell, name, x, units, layers, bidirectional, dropout, lengths)
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
    cell = Cell("LSTM", 4, rules, {}, states=2, forget_bias=forget_bias)
    stack = Stack(cell, name, x, units, layers, bidirectional, dropout, lengths)
    outputs, (last, memory) = stack.run(list(state or (None, None)))
    return outputs, last, memory


def _rules(weight: Initializer | None, recurrent: Initializer | None) -> tuple[Initializer, Initializer]:
    return weight or GlorotUniform(), recurrent or Orthogonal()
