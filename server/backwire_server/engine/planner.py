"""Decides, before a program runs, where each of its values will lie: what is a view, what shares memory, until when."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backwire_server.engine.chains import Run, find_runs
from backwire_server.engine.dims import concrete
from backwire_server.engine.emitted import Emitted, Outlined, order_of_result, views_of
from backwire_server.engine.geometry import Order, order_of, outline, same_geometry
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.memory import Buffer, line_up, place
from backwire_server.engine.operators import takes_out
from backwire_server.engine.registry import lookup
from backwire_server.engine.schedule import Chain, Home, Root, Schedule, Spot, Step, dependents_of


def make_schedule(
    nodes: Sequence[Emitted],
    types: Mapping[str, TensorType],
    constants: Mapping[str, Array],
    feeds: Mapping[str, Array],
    steady: Collection[str],
    targets: Sequence[str],
    kept: Collection[str],
) -> Schedule:
    """Schedules nodes that are in order.

    `feeds` tells how the values lie that a run is given; those that are `steady` lie in the same place in each run.
    """
    planner = _Planner(types, constants, feeds, steady, kept)
    for node in nodes:
        planner.add(node)
    planner.hold(targets)
    planner.chain()
    planner.share()
    return planner.finish(targets)


class _Planner:
    """Collects steps, and the memory that they need; the time of a step is its place among all."""

    def __init__(
        self,
        types: Mapping[str, TensorType],
        constants: Mapping[str, Array],
        feeds: Mapping[str, Array],
        steady: Collection[str],
        kept: Collection[str],
    ) -> None:
        self._types = types
        self._kept = kept
        self._feeds = feeds
        self._steady = steady
        self._schedule = Schedule()
        self._steps: list[Step] = []
        self._outlines: dict[int, Array] = {}
        self._roots: dict[int, Root] = {}
        self._copies: dict[int, int] = {}
        self._room: list[Buffer] = []
        self._wanted: set[int] = set()
        self._chained: set[int] = set()
        self._passing: set[int] = set()  # the identities of roots that hold one block of a chain
        for name, array in {**feeds, **constants}.items():
            slot = self._slot(name)
            self._roots[slot], self._outlines[slot] = Root(Home.GIVEN, Buffer(0, 0, 0)), array
            if name in constants:
                self._schedule.constants[slot] = array

    def add(self, node: Emitted) -> None:
        """Makes a step of a node: a view of its first input if it can be, else with memory for its outputs."""
        inputs = tuple(self._settled(node, at, name) for at, name in enumerate(node.inputs))
        outputs = tuple(self._slot(name) for name in node.outputs)
        for slot in filter(None, inputs):
            self._roots[slot].buffer.last = len(self._steps)
        arrays = [self._outlines[slot] if slot else None for slot in inputs]
        is_view = self._is_view(node, inputs, arrays)
        reads = (inputs[at] for at in node.op.reads if at < len(inputs))
        is_prepared = node.op.prepare is not None and not is_view and self._are_constant(reads)
        if is_view:
            for slot, view in zip(outputs, views_of(node, arrays), strict=False):
                self._outlines[slot], self._roots[slot] = view, self._roots[inputs[0]]
        else:
            for slot, name in zip(outputs, node.outputs, strict=True):
                order = order_of_result(node, arrays, concrete(self._types[name].shape), is_prepared)
                self._own(slot, self._types[name], order, Home.KEPT if name in self._kept else Home.WORK)
        self._steps.append(Step(node, inputs, outputs, (), is_view, is_prepared))

    def hold(self, targets: Sequence[str]) -> None:
        """Keeps what is to be kept, and makes a result of each other target that has a piece of memory for itself."""
        for name in sorted(targets, key=self._kept.__contains__, reverse=True):
            slot = self._slot(name)
            root = self._roots[slot]
            root.buffer.last = len(self._steps)
            self._wanted.add(slot)
            if root.home is Home.WORK and name in self._kept:
                root.home = Home.KEPT
            elif root.home is Home.WORK and slot in self._schedule.spots and self._outlines[slot].flags.c_contiguous:
                root.home = Home.RESULT

    def chain(self) -> None:
        """Makes chains of runs of steps; a value that only lives within a run gets memory for one block."""
        start, until = 0, self._needed_until()
        for run in find_runs(self._steps, self._outlines):
            self._schedule.steps += [self._with_room(at, _WHOLE) for at in range(start, run.start)]
            passing = self._passing_values(run, until)
            self._confine(run, passing)
            steps = [self._with_room(at, run) for at in range(run.start, run.stop)]
            self._schedule.steps += [step for step in steps if step.is_view]
            inner = tuple(step for step in steps if not step.is_view)
            self._schedule.steps.append(Chain(inner, run.cuts, run.count, run.rows, passing))
            self._chained.update(range(run.start, run.stop))
            start = run.stop
        self._schedule.steps += [self._with_room(at, _WHOLE) for at in range(start, len(self._steps))]

    def share(self) -> None:
        """Lets an elementwise node leave its result in the place of an input that nobody needs any more.

        Within a chain only values that do not outlive a block share memory.
        """
        for index, step in enumerate(self._steps):
            if not step.is_view and step.node.op.elementwise and len(step.outputs) == 1:
                root = self._roots[step.outputs[0]]
                passing = id(root) in self._passing
                if root.home is Home.WORK and passing == (index in self._chained):
                    heir = self._replaceable(index, step)
                    if heir is not None and (id(heir) in self._passing) == passing:
                        heir.buffer.last = root.buffer.last
                        root.heir = heir

    def finish(self, targets: Sequence[str]) -> Schedule:
        """Places everything in memory."""
        schedule = self._schedule
        roots = {id(root): root for root in (each.final() for each in self._roots.values())}.values()
        schedule.work_bytes = place([*(root.buffer for root in roots if root.home is Home.WORK), *self._room])
        schedule.kept_bytes = line_up([root.buffer for root in roots if root.home is Home.KEPT])
        for slot, spot in schedule.spots.items():
            schedule.spots[slot] = replace(spot, root=spot.root.final())
        schedule.homes = {slot: self._roots[slot].final().home for slot in map(self._slot, targets)}
        kept = {name: self._outlines[self._slot(name)] for name in targets if name in self._kept}
        schedule.outlines = {**self._feeds, **kept}
        schedule.lasting = frozenset(name for name in kept if schedule.homes[self._slot(name)] is Home.KEPT)
        schedule.dependents = dependents_of(schedule, self._roots)
        return schedule

    def _slot(self, name: str) -> int:
        return self._schedule.slots.setdefault(name, len(self._schedule.slots))

    def _own(self, slot: int, type_: TensorType, order: Order | None, home: Home) -> None:
        shape = concrete(type_.shape)
        array = outline(type_.dtype, shape, order)
        root = Root(home, Buffer(array.nbytes, len(self._steps), len(self._steps)))
        self._outlines[slot], self._roots[slot] = array, root
        self._schedule.spots[slot] = Spot(root, array.dtype, shape, array.strides)

    def _settled(self, node: Emitted, at: int, name: str) -> int:
        """Returns the slot of an input, or of its copy if the operator wants it to stay where it is."""
        slot = self._slot(name)
        given = slot and self._roots[slot].home is Home.GIVEN and slot not in self._schedule.constants
        if not given or name in self._steady or at not in node.op.settled:
            return slot
        if slot not in self._copies:
            copy = Emitted(lookup("Copy"), (name,), (f"%copy:{name}",), {}, node.label, node.owner, node.of)
            self._copies[slot] = self._slot(copy.outputs[0])
            self._own(self._copies[slot], self._types[name], node.op.settled[at](self._outlines[slot]), Home.WORK)
            self._steps.append(Step(copy, (slot,), (self._copies[slot],)))
        return self._copies[slot]

    def _are_constant(self, slots: Iterable[int]) -> bool:
        return all(slot in self._schedule.constants for slot in slots if slot)

    def _is_view(self, node: Emitted, inputs: Sequence[int], arrays: Outlined) -> bool:
        if node.op.view is None or arrays[0] is None or not arrays[0].size or not self._are_constant(inputs[1:]):
            return False
        return bool(node.op.view(arrays[0], self._types[node.outputs[0]]))

    def _needed_until(self) -> dict[int, int]:
        """Returns after which step nobody needs a value any more, beyond the last where it is viewed or a target."""
        until: dict[int, int] = {}
        for at, step in enumerate(self._steps):
            for slot in step.inputs:
                until[slot] = len(self._steps) if step.is_view else max(at, until.get(slot, 0))
        until.update(dict.fromkeys(self._wanted, len(self._steps)))
        return until

    def _passing_values(self, run: Run, until: Mapping[int, int]) -> frozenset[int]:
        """Returns the values made in a run that nobody needs outside of it, nor as a view."""
        steps = self._steps[run.start : run.stop]
        made = (slot for step in steps if not step.is_view for slot in step.outputs)
        return frozenset(slot for slot in made if until.get(slot, 0) < run.stop)

    def _confine(self, run: Run, passing: Collection[int]) -> None:
        """Gives passing values memory for a block; what else a run touches is in use from its beginning to its end."""
        for slot, cut in run.cuts.items():
            root, array = self._roots[slot], self._outlines[slot]
            if slot in passing:
                block = outline(array.dtype, run.block(array.shape, cut), order_of(array))
                root.buffer.nbytes = block.nbytes
                self._outlines[slot] = block
                self._schedule.spots[slot] = Spot(root, array.dtype, block.shape, block.strides)
                self._passing.add(id(root))
            else:
                if root.buffer.first >= run.start:
                    root.buffer.first = run.start
                root.buffer.last = max(root.buffer.last, run.stop - 1)

    def _with_room(self, at: int, run: Run) -> Step:
        """Returns a step with the slots of the arrays that it works in, for a block of the run."""
        step = self._steps[at]
        if not step.is_prepared:
            return step
        slots: list[int] = []

        def take(shape: Sequence[int], dtype: Any) -> Array:
            array = outline(np.dtype(dtype), shape)
            root = Root(Home.WORK, Buffer(array.nbytes, at, at))
            self._room.append(root.buffer)
            slots.append(self._slot(f"%room:{at}:{len(slots)}"))
            self._schedule.spots[slots[-1]] = Spot(root, np.dtype(np.uint8), (array.nbytes,), (1,))
            return array

        arrays = [self._block(slot, run) for slot in step.inputs]
        assert step.node.op.prepare is not None
        step.node.op.prepare(self._block(step.outputs[0], run), *arrays, take=take, **step.node.attributes)
        return replace(step, scratch=tuple(slots))

    def _block(self, slot: int, run: Run) -> Array | None:
        array, cut = self._outlines.get(slot), run.cuts.get(slot)
        if array is None or cut is None:
            return array
        return np.lib.stride_tricks.as_strided(array, run.block(array.shape, cut), array.strides)

    def _replaceable(self, at: int, step: Step) -> Root | None:
        assert step.node.op.kernel is not None
        if not takes_out(step.node.op.kernel):
            return None
        out = self._outlines[step.outputs[0]]
        inputs = [(self._outlines[slot], self._roots[slot].final()) for slot in step.inputs if slot]
        for array, root in inputs:
            whole = root.buffer.nbytes == out.nbytes and same_geometry(array, out)
            alone = all(same_geometry(other, array) for other, where in inputs if where is root)
            if root.home is Home.WORK and root.buffer.last == at and whole and alone:
                return root
        return None


_WHOLE = Run(0, 1)
