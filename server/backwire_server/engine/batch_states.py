"""What can be said of a value with regard to the examples of a batch; None: it has nothing to do with them."""

from dataclasses import dataclass

from backwire_server.engine.dims import Dim


@dataclass(frozen=True, slots=True)
class Rows:
    """The examples lie along an axis, and what is of one depends on no other.

    Along the axis there are `outer` times all examples, `inner` elements of each: example b has those whose index is
    (o * batch + b) * inner + i. Reshape makes such axes of several.
    """

    axis: int
    outer: Dim = 1
    inner: Dim = 1


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over all examples, or a linear function of such means."""


@dataclass(frozen=True, slots=True)
class Open:
    """Not known before all sizes are."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """Examples have met, at the node of the graph with this operator, label and place; `how` goes on from its name."""

    op: str
    label: str
    place: int
    how: str

    def __str__(self) -> str:
        return f"{self.op} node {self.label!r} {self.how}"


State = Rows | Mean | Open | Mixed | None
MEAN, OPEN = Mean(), Open()
