"""The nodes of a built graph that some of its values need, and the two ways to run them."""

from collections.abc import Collection, Container, Mapping, Sequence
from copy import copy
from typing import Any, TypeVar

import numpy as np

from backwire_server.engine.builder import Builder
from backwire_server.engine.cost import flops, nbytes
from backwire_server.engine.derived import derived
from backwire_server.engine.dims import concrete
from backwire_server.engine.emitted import Emitted, run_kernel
from backwire_server.engine.errors import EngineError, GraphError
from backwire_server.engine.frame import Frame
from backwire_server.engine.geometry import outline
from backwire_server.engine.graph import Array
from backwire_server.engine.memory import Workspace
from backwire_server.engine.planner import make_schedule
from backwire_server.engine.schedule import Schedule
from backwire_server.engine.stopping import NEVER, Stop

F = TypeVar("F", bound=Frame)

PLANNED_BYTES = 1 << 40  # more is not planned, since it could not run


class Program:
    """Computes `targets` of a builder's graph from values that are `given`; nodes that do not matter are left out.

    A program holds no values. Of the `targets`, those at the places `kept` are for a later program and stay in the
    frame; for that one, this is the `source`. What it is given besides lies in C order.

    Attributes:
        feeds: The names of the given values that a run needs.
        targets: The names of the values that it computes.
        nodes: What it runs, in order.
        types: The types of all values in it.
        known: The elements of those that are known before it runs.
        kept: The places of the targets that are for a later program.
        compiled: What other executors than frames made of it, by their keys.
    """

    def __init__(
        self,
        builder: Builder,
        targets: Sequence[str],
        given: Collection[str],
        kept: Collection[int] = (),
        source: "Program | None" = None,
    ) -> None:
        nodes, needed = _needed(builder, targets, given)
        names = [*needed, *(name for node in nodes for name in node.outputs)]
        self.nodes = tuple(nodes)
        self.targets = tuple(targets)
        self.types = {name: type_ for name in names if (type_ := builder.types[name]) is not None}
        self.feeds = tuple(name for name in needed if name not in builder.constants)
        self._constants = {name: builder.constants[name] for name in needed if name in builder.constants}
        self.known = {name: builder.known[name] for name in self.types if name in builder.known}
        self.kept = frozenset(kept)
        self.compiled: dict[object, Any] = {}
        self._source = source

    def apart(self) -> "Program":
        """Returns an equal program with which nothing is kept, in memory that it shares with this one."""
        found = copy(self)
        found.compiled = {}
        found._source = None if self._source is None else self._source.apart()
        return found

    @property
    def nbytes(self) -> int:
        """The bytes of all values that it computes, as if none shared memory."""
        return sum(nbytes(self.types.get(name)) for node in self.nodes for name in node.outputs)

    @derived
    def flops(self) -> int:
        """The floating-point operations of a run; see `cost.flops`."""
        return flops(self.nodes, self.types)

    @derived
    def schedule(self) -> Schedule:
        """Where the values lie when the program runs in a frame. Raises GraphError when no machine could hold them."""
        if self.nbytes > PLANNED_BYTES:
            raise GraphError(f"the values on the way would hold {self.nbytes:,} bytes; use smaller shapes")
        types = {name: self.types[name] for name in self.feeds}
        plain = {name: outline(type_.dtype, concrete(type_.shape)) for name, type_ in types.items()}
        outlines = self._source.schedule.outlines if self._source else {}
        feeds = {name: outlines.get(name, array) for name, array in plain.items()}
        steady = self._source.schedule.lasting if self._source else ()
        kept = {self.targets[place] for place in self.kept}
        return make_schedule(self.nodes, self.types, self._constants, feeds, steady, self.targets, kept)

    def frame(self, workspace: Workspace, passing: Container[str] = ()) -> Frame:
        """Returns the program made ready to run many times; the feeds named `passing` are other arrays in each run."""
        return self.frame_of(Frame, workspace, passing)

    def frame_of(self, kind: type[F], workspace: Workspace, passing: Container[str] = ()) -> F:
        """Returns a frame of this kind."""
        return kind(self.schedule, self.feeds, self.targets, self.kept, workspace, passing)

    def run(self, values: Mapping[str, Array], stop: Stop = NEVER) -> list[Array]:
        """Returns the targets, in order, by calling kernel after kernel: what a frame must agree with.

        Raises EngineError naming the node when an element is not acceptable, and Stopped when that is wanted.
        """
        found: dict[str, Array | None] = {"": None, **self._constants, **{name: values[name] for name in self.feeds}}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                if stop.wanted:
                    stop.heed()
                try:
                    results = run_kernel(node, [found[name] for name in node.inputs])
                except EngineError as error:
                    raise error.within(node.described, f"graph.nodes[{node.label}]") from None
                found.update(zip(node.outputs, results, strict=True))
        return [array for name in self.targets if (array := found[name]) is not None]


def _needed(builder: Builder, targets: Sequence[str], given: Collection[str]) -> tuple[list[Emitted], list[str]]:
    """Returns the nodes to run, in order, and the names that they and the targets take from outside."""
    wanted = dict.fromkeys(targets)
    nodes = []
    for node in reversed(builder.nodes):
        if any(name in wanted and name not in given for name in node.outputs):
            nodes.append(node)
            wanted.update(dict.fromkeys(filter(None, node.inputs)))
    nodes.reverse()
    made = {name for node in nodes for name in node.outputs if name not in given}
    return nodes, [name for name in wanted if name not in made]
