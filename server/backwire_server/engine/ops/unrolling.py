"""What RNN, GRU and LSTM have in common: a cell, unrolled over the steps of the sequence in each direction."""

from collections.abc import Callable, Sequence

from backwire_server.engine.dims import Dim, Shape
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.ops.linear import transposed
from backwire_server.engine.shapes import require, require_equal, require_rank
from backwire_server.engine.values import O, Value

States = tuple[Value, ...]
Cell = Callable[[Value, States], States]  # from a step's projected input and the states to the states after it
MakeCell = Callable[[int, Value, Value | None], Cell]  # from the direction's index, its R transposed and its bias

BACKWARDS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def _directions(direction: str) -> tuple[bool, ...]:
    """Returns for each direction whether it runs backwards."""
    if direction not in BACKWARDS:
        raise InvalidAttribute(f"direction is {direction!r}; use one of {', '.join(BACKWARDS)}")
    return BACKWARDS[direction]


def each_along(x: Value, axis: int) -> list[Value]:
    """Returns the slices of x along the axis, without it."""
    return [O.Squeeze(part, [axis]) for part in O.Split(x, axis=axis, n_outputs=int(x.shape[axis]))]


def parts(x: Value, *sizes: Dim) -> list[Value]:
    """Returns x cut along its last axis into parts of the sizes."""
    return list(O.Split(x, list(sizes), axis=-1, n_outputs=len(sizes)))


def affine(x: Value, weight: Value, bias: Value | None) -> Value:
    """Returns x weight + bias, where there is a bias."""
    return x @ weight if bias is None else x @ weight + bias


def require_shape(value: Value | None, shape: Sequence[Dim], what: str) -> None:
    """Raises ShapeMismatch, which says `what` it is about, unless the value is absent or can have the shape."""
    if value is None:
        return
    require_rank(value, len(shape), len(shape))
    for axis, (found, wanted) in enumerate(zip(value.shape, shape, strict=True)):
        require_equal(found, wanted, f"the size of {what} on axis {axis} and what it must be")


class Layer:
    """What RNN, GRU and LSTM share: x [T, N, I] goes through a cell step by step, in one direction or in both.

    `layout` 1 puts the batch before the steps in x, and before the directions in the states. W is [D, gates H, I], R
    [D, gates H, H], b [D, 2 gates H], the biases of W before those of R; each initial state is [D, N, H], or zeros.
    """

    def __init__(
        self,
        x: Value,
        w: Value,
        r: Value,
        b: Value | None,
        lengths: Value | None,
        *,
        gates: int,
        direction: str,
        hidden_size: int | None,
        layout: int,
    ) -> None:
        for value, rank in ((x, 3), (w, 3), (r, 3)):
            require_rank(value, rank, rank)
        require(x, "f")
        if layout not in (0, 1):
            raise InvalidAttribute(f"layout is {layout}; use 0 for steps first or 1 for the batch first")
        self.backwards = _directions(direction)
        self.size = int(r.shape[-1])
        if hidden_size is not None and hidden_size != self.size:
            raise InvalidAttribute(f"hidden_size is {hidden_size}, but R {r.type} is of {self.size} units")
        self.layout = layout
        self.x: Value = O.Transpose(x, perm=(1, 0, 2)) if layout else x
        shape: Shape = self.x.shape
        steps, self.batch, features = shape
        if steps == 0:
            raise ShapeMismatch("the sequences have no steps; give them at least one")
        count = len(self.backwards)
        require_shape(w, (count, gates * self.size, features), "W")
        require_shape(r, (count, gates * self.size, self.size), "R")
        require_shape(b, (count, 2 * gates * self.size), "the bias")
        require_shape(lengths, (self.batch,), "sequence_lens")
        self.w, self.r, self.b, self.lengths, self.gates = w, r, b, lengths, gates

    def run(self, initial: Sequence[Value | None], make_cell: MakeCell) -> tuple[Value, ...]:
        """Returns the hidden state after each step, the first of the states, and all states after the last step."""
        starts = [self._start(state) for state in initial]
        outputs, ends = [], []
        for index, backwards in enumerate(self.backwards):
            inputs, cell = self._prepare(index, make_cell)
            output, end = self._scan(inputs, cell, tuple(start[index] for start in starts), backwards)
            outputs.append(O.Unsqueeze(output, [1]))
            ends.append([O.Unsqueeze(state, [0]) for state in end])
        y = O.Concat(*outputs, axis=1)
        last = [O.Concat(*states, axis=0) for states in zip(*ends, strict=True)]
        if not self.layout:
            return (y, *last)
        return (O.Transpose(y, perm=(2, 0, 1, 3)), *(O.Transpose(state, perm=(1, 0, 2)) for state in last))

    def _start(self, state: Value | None) -> list[Value]:
        """Returns the initial state of each direction, [N, H]."""
        count = len(self.backwards)
        if state is None:
            return [O.Expand(self.x.like(0.0), [self.batch, self.size])] * count
        state = O.Transpose(state, perm=(1, 0, 2)) if self.layout else state
        require_shape(state, (count, self.batch, self.size), "an initial state")
        return each_along(state, 0)

    def _prepare(self, index: int, make_cell: MakeCell) -> tuple[list[Value], Cell]:
        """Returns what the input contributes to each step, all steps in one product, and the cell."""
        w, r = each_along(self.w, 0)[index], each_along(self.r, 0)[index]
        biases: Sequence[Value | None] = (None, None)
        if self.b is not None:
            half = self.gates * self.size
            biases = parts(each_along(self.b, 0)[index], half, half)
        inputs = each_along(affine(self.x, transposed(w), biases[0]), 0)
        return inputs, make_cell(index, O.Copy(transposed(r)), biases[1])  # each step's product is faster with a copy

    def _scan(self, inputs: list[Value], cell: Cell, states: States, backwards: bool) -> tuple[Value, States]:
        """Returns the hidden states [T, N, H] and the last states.

        Past the end of a sequence the hidden state is 0 in the first result, and the states stay as they are.
        """
        hidden: dict[int, Value] = {}
        for step in sorted(range(len(inputs)), reverse=backwards):
            after = cell(inputs[step], states)
            hidden[step] = after[0]
            if self.lengths is not None:
                inside = O.Unsqueeze(self.lengths > step, [1])
                hidden[step] = O.Where(inside, after[0], self.x.like(0.0))
                after = tuple(O.Where(inside, new, old) for new, old in zip(after, states, strict=True))
            states = after
        return O.Concat(*(O.Unsqueeze(hidden[step], [0]) for step in range(len(inputs))), axis=0), states
