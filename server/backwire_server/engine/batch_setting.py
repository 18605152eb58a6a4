"""A node of a graph as the rules of `batch_rules` see it: with what is known of the examples in its inputs."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from backwire_server.engine.batch_states import Rows, State
from backwire_server.engine.builder import Builder
from backwire_server.engine.dims import Dim, Shape
from backwire_server.engine.emitted import Emitted
from backwire_server.engine.values import Value

UNKNOWN = "is not known to keep the examples of a batch apart"
PLACES = "computes with where in the batch an example is"


class Meeting(Exception):
    """Examples meet at a node; the text says how, going on from the node's name."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A node, and the states of its inputs, none of which is Open or Mixed."""

    builder: Builder
    node: Emitted
    states: tuple[State, ...]
    batch: Dim

    @property
    def shapes(self) -> list[Shape]:
        """The shapes of the inputs; of one that is left out that of a scalar."""
        return [self.value(place).shape if name else () for place, name in enumerate(self.node.inputs)]

    @property
    def results(self) -> list[Shape]:
        """The shapes of the outputs."""
        return [Value(self.builder, name).shape for name in self.node.outputs]

    @property
    def axis(self) -> int:
        """The attribute `axis`, as one of the first input's axes counted from the front."""
        axis = self.node.attributes["axis"]
        assert isinstance(axis, int)
        return axis % len(self.shapes[0])

    def value(self, place: int) -> Value:
        """Returns an input."""
        return Value(self.builder, self.node.inputs[place])

    def elements(self, place: int) -> list[int] | None:
        """Returns the elements of an input of numbers that shapes depend on; None where it is left out."""
        given = place < len(self.node.inputs) and self.node.inputs[place]
        return self.value(place).known.ravel().tolist() if given else None

    def only(self) -> Rows:
        """Returns the state of the first input, which must be the only one with examples."""
        first, *others = self.states
        if not isinstance(first, Rows) or any(others):
            raise Meeting(UNKNOWN)
        return first

    def apart_from(self, axes: Sequence[int], state: Rows | None = None) -> Rows:
        """Returns the state, that of the only input with examples where none is given, if its axis is none of these."""
        found = state or self.only()
        if found.axis in axes:
            raise self.meets(found.axis)
        return found

    def meets(self, axis: int) -> Meeting:
        """Returns that examples meet along an axis of an input."""
        return Meeting(f"mixes the examples of a batch, which are along axis {axis} of its input")

    def collapses(self) -> Meeting:
        """Returns that one result is made of all examples."""
        return Meeting(f"makes one result of all examples along {self.batch}, and no mean")

    def joined(self, terms: Sequence[Sequence[Hashable]], result: Sequence[Hashable], *, whole: bool = False) -> Rows:
        """Returns the state of a sum of products, as einsum has them: `terms` name the axes of each input.

        An input without examples is broadcast to them, unless each must be `whole`.
        """
        found = {(term[s.axis], s.outer, s.inner) for term, s in self._placed(terms) if isinstance(s, Rows)}
        if len(found) != 1:
            raise Meeting("combines examples with others of the batch")
        ((letter, outer, inner),) = found
        for place, (term, state) in enumerate(self._placed(terms)):
            axes = [axis for axis, each in enumerate(term) if each == letter]
            if isinstance(state, Rows) and axes != [state.axis]:
                raise self.meets(state.axis)
            if not state and any(whole or self.shapes[place][axis] != 1 for axis in axes):
                raise Meeting(PLACES)
        if letter not in result:
            raise self.collapses()
        return Rows(list(result).index(letter), outer, inner)

    def _placed(self, terms: Sequence[Sequence[Hashable]]) -> list[tuple[Sequence[Hashable], State]]:
        return list(zip(terms, self.states, strict=True))


Rule = Callable[[Setting], State | tuple[State, ...]]
"""Returns the states of the outputs of a node some of whose inputs have examples; raises Meeting."""


def spread(shape: Shape, batch: Dim) -> State:
    """Returns the state of a value of this shape that has been made alike for all examples, if it is for examples."""
    for axis, dim in enumerate(shape):
        inner = quotient(dim, batch)
        if inner is not None and inner != 0:
            return Rows(axis, 1, inner)
    return None


def quotient(a: Dim, b: Dim) -> Dim | None:
    """Returns a / b where b divides a, None elsewhere."""
    if b == 0:
        return None
    found: Dim = a // b
    return found if found * b == a else None
