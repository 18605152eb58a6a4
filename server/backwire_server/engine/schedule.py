"""Where each value of a program lies while it runs, and in which order what is done: the result of planning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from backwire_server.engine.emitted import Emitted
from backwire_server.engine.graph import Array, DType
from backwire_server.engine.memory import Buffer


class Home(Enum):
    """Whose memory a value lies in."""

    GIVEN = auto()  # a feed or a constant: never written
    WORK = auto()  # memory that the next run, and other programs, use again
    KEPT = auto()  # memory of the frame, which nobody else writes while its pass lives
    RESULT = auto()  # an array that leaves with the result


@dataclass(slots=True)
class Root:
    """A piece of memory that one or several values lie in; `heir` is another one that took it over."""

    home: Home
    buffer: Buffer
    heir: "Root | None" = None

    def final(self) -> "Root":
        """Returns the piece of memory after all takeovers."""
        root = self
        while root.heir is not None:
            root = root.heir
        return root


@dataclass(frozen=True, slots=True)
class Spot:
    """An array in a root."""

    root: Root
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A node with the slots of its values; slot 0 is that of inputs which are left out."""

    node: Emitted
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scratch: tuple[int, ...] = ()
    is_view: bool = False
    is_prepared: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps that are all done for one block of rows before the next block is begun.

    Attributes:
        steps: The steps, none of them a view.
        cuts: The axis along which each array is cut into rows, counted from its end; None for one that is not cut.
        count: The number of rows.
        rows: The number of rows in a block; the last may have fewer.
        passing: The slots of values that only live within a block: their arrays hold one block.
    """

    steps: tuple[Step, ...]
    cuts: dict[int, int | None]
    count: int
    rows: int
    passing: frozenset[int]


@dataclass(slots=True)
class Schedule:
    """What a frame needs to prepare the calls of a program.

    Attributes:
        steps: What is done, in order.
        slots: The number of each value.
        spots: Where the values that the program computes lie, by slot; views are found when they are bound.
        constants: The arrays that never change, by slot.
        homes: Whose memory each target lies in, by slot.
        outlines: How the values that the frame is given and those that it keeps lie in memory, by name.
        lasting: The names of the values that lie in the frame, in the same place after each run.
        dependents: The steps that touch a feed or a result, by the slot of that.
        work_bytes: The memory that is in use only while the program runs.
        kept_bytes: The memory of a frame.
    """

    steps: list[Step | Chain] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=lambda: {"": 0})
    spots: dict[int, Spot] = field(default_factory=dict)
    constants: dict[int, Array] = field(default_factory=dict)
    homes: dict[int, Home] = field(default_factory=dict)
    outlines: dict[str, Array] = field(default_factory=dict)
    lasting: frozenset[str] = frozenset()
    dependents: dict[int, tuple[int, ...]] = field(default_factory=dict)
    work_bytes: int = 0
    kept_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """The memory that a run holds: what is kept, in use, and leaves with the result."""
        leaving = sum(self.spots[slot].root.buffer.nbytes for slot in self.results)
        return self.kept_bytes + self.work_bytes + leaving

    @property
    def results(self) -> list[int]:
        """The slots of the arrays that leave with the result."""
        return [slot for slot, spot in self.spots.items() if spot.root.home is Home.RESULT]


def dependents_of(schedule: Schedule, roots: Mapping[int, Root]) -> dict[int, tuple[int, ...]]:
    """Returns the steps that touch each value, by its slot: those that read or write it, or read a view of it."""
    touched: dict[int, list[int]] = {slot: [] for slot in roots}
    source = {slot: slot for slot in roots}
    for index, item in enumerate(schedule.steps):
        steps = item.steps if isinstance(item, Chain) else (item,)
        for slot in {source[each] for step in steps for each in (*step.inputs, *step.outputs) if each}:
            touched[slot].append(index)
        if isinstance(item, Step) and item.is_view:
            source.update(dict.fromkeys(item.outputs, source[item.inputs[0]]))
            touched[source[item.inputs[0]]].append(index)
    return {slot: tuple(dict.fromkeys(steps)) for slot, steps in touched.items()}
