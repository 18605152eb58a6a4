"""Memory for a program's values and the calls that compute them, made once and run many times."""

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from backwire_server.engine.emitted import Emitted, views_of
from backwire_server.engine.errors import EngineError
from backwire_server.engine.geometry import copied_like, same_geometry, with_strides_of
from backwire_server.engine.graph import Array
from backwire_server.engine.memory import Workspace, allocate
from backwire_server.engine.operators import N_OUTPUTS, takes_n_outputs, takes_out
from backwire_server.engine.registry import Call
from backwire_server.engine.schedule import Chain, Home, Schedule, Spot, Step
from backwire_server.engine.stopping import NEVER, Stop

SMALL_BYTES = 16_384  # up to here it is cheaper to copy an array than to bind another one in its place

_NOTHING: Mapping[int, Array] = {}


class Frame:
    """A program's prepared calls, with the memory that they write. One run at a time.

    Attributes:
        kept_bytes: The memory that belongs to this frame alone.
    """

    def __init__(
        self,
        schedule: Schedule,
        feeds: Sequence[str],
        targets: Sequence[str],
        kept: Container[int],
        workspace: Workspace,
        passing: Container[str] = (),
    ) -> None:
        self._schedule = schedule
        self._workspace = workspace
        self._memory = allocate(schedule.kept_bytes)
        self._work: Array | None = None
        self._arrays: list[Array | None] = [None] * len(schedule.slots)
        for slot, array in schedule.constants.items():
            self._arrays[slot] = array
        self._feeds = [(name, schedule.slots[name], name in passing) for name in feeds]
        self._given: list[Array | None] = [None] * len(feeds)  # what was bound last
        self._targets = [schedule.slots[name] for name in targets]
        self._kept = kept
        self._results = {slot: self._targets.index(slot) for slot in schedule.results}
        self._own: dict[int, Array] = {}  # the frame's arrays for small feeds and results, which stay bound, by slot
        self._calls: list[Call] = []
        self._places: list[slice] = []
        self.kept_bytes = schedule.kept_bytes

    def run(self, values: Mapping[str, Array], into: Mapping[int, Array] = _NOTHING, stop: Stop = NEVER) -> list[Array]:
        """Returns the targets, in order; raises EngineError naming the node when an element is not acceptable.

        `into` gives arrays in C order to leave targets in, by their place. Other targets are new arrays, except those
        that are kept, which lie in the frame until its next run, and views of what was given. Raises
        Stopped before the next call of a kernel when that is wanted; the frame can be run again, whatever was raised.
        """
        try:
            self._bind(self._exchange(values, into))
        except BaseException:
            self._work, self._calls, self._places = None, [], []  # bind everything anew next time
            raise
        call = None
        try:
            with np.errstate(all="ignore"):
                for call in self._calls:
                    if stop.wanted:
                        stop.heed()
                    call()
        except EngineError as error:
            node = self._node_of(call)
            raise error.within(node.described, f"graph.nodes[{node.label}]") from None
        return [self._target(place, slot, into.get(place)) for place, slot in enumerate(self._targets)]

    def let_go(self) -> None:
        """Forgets the large feeds that were passing, which must not live on because of this frame."""
        for place, (_, slot, passing) in enumerate(self._feeds):
            if passing and slot not in self._own and self._arrays[slot] is not None:
                self._given[place] = self._arrays[slot] = None
                for index in self._schedule.dependents[slot]:
                    step = self._schedule.steps[index]
                    if self._places:
                        calls = self._places[index]
                        self._calls[calls] = [_unbound] * (calls.stop - calls.start)
                    if isinstance(step, Step) and step.is_view:
                        for view in step.outputs:
                            self._arrays[view] = None

    def _exchange(self, values: Mapping[str, Array], into: Mapping[int, Array]) -> Collection[int]:
        """Takes over new feeds and results; returns the steps to bind again."""
        given, stale = self._given, list[int]()
        for place, (name, slot, passing) in enumerate(self._feeds):
            array = values[name]
            if given[place] is not array:
                outline = self._schedule.outlines[name]
                if passing and outline.nbytes <= SMALL_BYTES:
                    np.copyto(self._owned(slot, outline, stale), array)
                elif array.flags.aligned and same_geometry(array, outline):
                    given[place] = array
                    self._replace(slot, with_strides_of(array, outline), stale)
                else:
                    self._replace(slot, copied_like(array, outline), stale)
        for slot, place in self._results.items():
            spot = self._schedule.spots[slot]
            if place in into:
                self._replace(slot, into[place], stale)
            elif spot.root.buffer.nbytes <= SMALL_BYTES:
                self._replace(slot, self._owned(slot, spot, stale), stale)
            else:
                self._replace(slot, np.empty(spot.shape, spot.dtype), stale)
        memory = self._workspace.reserve(self._schedule.work_bytes)
        if memory is not self._work:
            self._work = memory
            return self._bind_spots(memory)
        return sorted(set(stale))

    def _replace(self, slot: int, array: Array, stale: list[int]) -> None:
        if self._arrays[slot] is not array:
            self._arrays[slot] = array
            stale += self._schedule.dependents[slot]

    def _owned(self, slot: int, like: Array | Spot, stale: list[int]) -> Array:
        if slot not in self._own:
            self._own[slot] = np.empty(like.shape, like.dtype)
            self._replace(slot, self._own[slot], stale)
        return self._own[slot]

    def _bind_spots(self, work: Array) -> Collection[int]:
        for slot, spot in self._schedule.spots.items():
            if spot.root.home is not Home.RESULT:
                self._arrays[slot] = _array(self._memory if spot.root.home is Home.KEPT else work, spot)
        self._calls, self._places = [], []
        return range(len(self._schedule.steps))

    def _bind(self, stale: Collection[int]) -> None:
        fresh = not self._places
        for index in stale:
            calls = self._prepare(self._schedule.steps[index])
            if fresh:
                self._places.append(slice(len(self._calls), len(self._calls) + len(calls)))
                self._calls += calls
            else:
                self._calls[self._places[index]] = calls

    def _prepare(self, item: Step | Chain) -> list[Call]:
        if isinstance(item, Chain):
            return [
                call
                for start in range(0, item.count, item.rows)
                for step in item.steps
                for call in self._calls_of(step, self._cutter(item, start))
            ]
        if item.is_view:
            views = views_of(item.node, [self._arrays[slot] for slot in item.inputs])
            for slot, view in zip(item.outputs, views, strict=False):
                self._arrays[slot] = view
            return []
        return self._calls_of(item, self._arrays.__getitem__)

    def _cutter(self, chain: Chain, start: int) -> Callable[[int], Array | None]:
        """Returns what gives the rows of a value that belong to a block."""
        stop = min(start + chain.rows, chain.count)

        def block(slot: int) -> Array | None:
            array, cut = self._arrays[slot], chain.cuts.get(slot)
            if array is None or cut is None:
                return array
            rows = slice(0, stop - start) if slot in chain.passing else slice(start, stop)
            index: Any = (..., rows, *[slice(None)] * (-cut - 1))
            part: Array = array[index]
            return part

        return block

    def _calls_of(self, step: Step, array_at: Callable[[int], Array | None]) -> list[Call]:
        op, attributes = step.node.op, step.node.attributes
        inputs, outs = [array_at(slot) for slot in step.inputs], [array_at(slot) for slot in step.outputs]
        assert op.kernel is not None
        if step.is_prepared:
            assert op.prepare is not None
            spare = iter([self._arrays[slot] for slot in step.scratch])
            return list(op.prepare(outs[0], *inputs, take=lambda *kind: _room(next(spare), *kind), **attributes))
        if takes_out(op.kernel) and len(outs) == 1:
            return [partial(op.kernel, *inputs, out=outs[0], **attributes)]
        count = {N_OUTPUTS: len(outs)} if takes_n_outputs(op.kernel) else {}
        return [partial(_store, partial(op.kernel, *inputs, **attributes, **count), outs)]

    def _node_of(self, call: Call | None) -> Emitted:
        index = next(at for at, each in enumerate(self._calls) if each is call)
        step = next(at for at, place in enumerate(self._places) if place.start <= index < place.stop)
        item = self._schedule.steps[step]
        return (item.steps[0] if isinstance(item, Chain) else item).node

    def _target(self, place: int, slot: int, into: Array | None) -> Array:
        array = self._arrays[slot]
        assert array is not None
        home = self._schedule.homes[slot]
        if into is not None:
            if array is not into:
                np.copyto(into, array)
            return into
        if home is Home.RESULT and self._results.get(slot) == place and slot not in self._own:
            return array
        lasts = place in self._kept or (home is Home.GIVEN and not self._borrows(array))
        return array if lasts else np.array(array, order="C")

    def _borrows(self, array: Array) -> bool:
        """Tells whether the next run may change the array, because it is a view of the frame's copy of a feed."""
        return any(np.may_share_memory(array, own) for own in self._own.values())


def _array(memory: Array, spot: Spot) -> Array:
    return np.ndarray(spot.shape, spot.dtype, memory, spot.root.buffer.offset, spot.strides)


def _room(raw: Array | None, shape: Sequence[int], dtype: Any) -> Array:
    return np.ndarray(tuple(shape), dtype, raw)


def _unbound() -> None:
    raise AssertionError("a step runs before its arrays are bound")


def _store(kernel: Call, outs: Sequence[Array | None]) -> None:
    results = kernel()
    for out, result in zip(outs, results if isinstance(results, tuple) else (results,), strict=False):
        assert out is not None
        np.copyto(out, result)
