"""Batches of a session in parts, computed here and by helper processes at the same time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from backwire_server.engine.binding import bind_inputs
from backwire_server.engine.cost import Cost
from backwire_server.engine.graph import Array, Graph
from backwire_server.engine.model import Model
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.parallel import crew, part
from backwire_server.parallel.crew import Crew
from backwire_server.parallel.pace import Pace
from backwire_server.parallel.segment import Kind, Segment, packed_bytes, vector_kinds
from backwire_server.parallel.split import Split, joined, weighted_mean
from backwire_server.parallel.task import Part, Places, Result, Work, fresh_number
from backwire_server.sessions.errors import OutOfMemory
from backwire_server.sessions.parameters import ParameterStore
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.working import Working

BLOCK = 32_768
"""The elements of a gradient that are summed at a time, so that they stay in the cache."""

ALONE = Crew(0)


@dataclass(frozen=True, slots=True)
class Batch:
    """The parts of a batch, of `sizes` examples: their inputs, the outputs to return, and the first pass's key.

    `joints` tells how outputs of the parts become those of the batch; see `joined`. `scale` is what the loss is
    multiplied by on the way to gradients.
    """

    parts: Sequence[Mapping[str, Array]]
    sizes: Sequence[int]
    joints: Mapping[str, int | None]
    outputs: tuple[str, ...]
    key: tuple[int, int]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Whole:
    """What a batch gave: loss, outputs, gradients of parameters, updates of frozen ones; and the passes it took."""

    loss: float
    outputs: Mapping[str, Array]
    gradients: Mapping[str, Array]
    updates: Mapping[str, Array] = field(default_factory=dict)
    passes: int = 1


class Team:
    """Computes batches of a graph in parts; raises NotSplittable for a graph whose batches have none.

    Keeps memory between batches: for the gradients of all parts but the first, and for what helpers read.
    """

    def __init__(self, graph: Graph, definition: bytes = b"", *, helped: bool = True) -> None:
        """Has helpers compute, too, unless it is told not to: they have numpy's kernels alone.

        `definition` is for those on other nodes; see Work.
        """
        self._helped = helped
        self._definition = definition
        self._pace = Pace()
        self._split = Split(graph)
        self._graph = graph
        self._inputs = {item.name: item for item in graph.inputs}
        self._number = fresh_number()
        self._layout = part.layout_of(graph)
        self._gradients: list[tuple[Segment, Mapping[str, Array]]] = []
        self._given: list[Segment] = []
        self._frozen: tuple[Mapping[str, Array], Segment] | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the memory that it keeps."""
        frozen = [self._frozen[1]] if self._frozen else []
        return sum(segment.nbytes for segment in (*self._given, *frozen, *(each for each, _ in self._gradients)))

    def cut(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], most: int, key: tuple[int, int], stop: Stop = NEVER
    ) -> Batch:
        """Returns a batch in at most so many parts.

        Raises EngineError for wrong inputs, and for a loss or outputs that parts do not give; and Stopped.
        """
        whole = bind_inputs(self._inputs, inputs)
        parts = self._split.parts(whole, most)
        joints = self._split.joints(whole, outputs, stop) if len(parts) > 1 else {}
        return Batch(parts, [self._split.size(each) for each in parts], joints, tuple(outputs), key)

    def compute(
        self,
        batch: Batch,
        model: Model,
        store: ParameterStore,
        room: Mapping[str, Array],
        working: Working,
        stop: CallStop,
        reserve: Callable[[int], None],
    ) -> Whole:
        """Returns loss, outputs and gradients of a batch of several parts; the gradients are in `room` if that is any.

        Raises what the engine raises for one of the parts, what `working` and `reserve` raise, and Stopped.
        """
        self._make_room(len(batch.parts), reserve)
        first = room or self._layout.views(self._layout.zeros())
        into = [first, *(arrays for _, arrays in self._gradients)]
        share = partial(_all_parts, working, sum(batch.sizes) / batch.sizes[0], self._pace)

        def local(place: int) -> Result:
            admit = share if place == 0 else _admitted
            inputs = batch.parts[place]
            return part.compute(model, _part(batch, place), inputs, store.arrays, into[place], stop, admit)

        placed = partial(self._placed, batch, store, reserve)
        try:
            results = (crew.CREW if self._helped else ALONE).compute(
                Work(self._number, self._graph, len(batch.parts), placed, self._definition, self._pace), local, stop
            )
        except BaseException:
            self._gradients, self._given = [], []  # helpers may still write there
            raise
        names = results[0].parameters
        _combine([{name: arrays[name] for name in names} for arrays in into[: len(results)]], sum(batch.sizes))
        return self._whole(batch, results, {name: first[name] for name in names})

    def _whole(self, batch: Batch, results: Sequence[Result], gradients: Mapping[str, Array]) -> Whole:
        losses = [np.array(result.loss) for result in results]
        outputs = {
            name: joined(batch.joints[name], [result.outputs[name] for result in results], batch.sizes)
            for name in results[0].outputs
        }
        return Whole(float(weighted_mean(losses, batch.sizes)), outputs, gradients, passes=len(results))

    def _make_room(self, parts: int, reserve: Callable[[int], None]) -> None:
        nbytes = packed_bytes(vector_kinds(self._layout))
        del self._gradients[parts - 1 :]
        for _ in range(parts - 1 - len(self._gradients)):
            segment = _segment(nbytes, reserve)
            self._gradients.append((segment, self._layout.views(segment.vectors(self._layout))))

    def _placed(
        self, batch: Batch, store: ParameterStore, reserve: Callable[[int], None], place: int
    ) -> tuple[Part, Places]:
        """Returns a part, and where what it needs lies, which is put there."""
        asked = _part(batch, place)
        if not store.is_shared:
            reserve(store.current.nbytes)
        given = self._filled(asked.inputs, batch.parts[place], place - 1, reserve)
        return asked, Places(store.share(), self._frozen_in(store, reserve), given, self._gradients[place - 1][0])

    def _filled(
        self, kinds: Mapping[str, Kind], inputs: Mapping[str, Array], place: int, reserve: Callable[[int], None]
    ) -> Segment:
        nbytes = packed_bytes(kinds)
        while len(self._given) <= place:
            self._given.append(Segment(1))
        if self._given[place].nbytes < nbytes:
            self._given[place] = _segment(nbytes, reserve)
        for name, array in self._given[place].arrays(kinds).items():
            np.copyto(array, inputs[name])
        return self._given[place]

    def _frozen_in(self, store: ParameterStore, reserve: Callable[[int], None]) -> Segment:
        if self._frozen is None or self._frozen[0] is not store.frozen:
            kinds = part.frozen_kinds(self._graph)
            nbytes = packed_bytes(kinds)
            segment = _segment(nbytes, reserve)
            for name, array in segment.arrays(kinds).items():
                np.copyto(array, store.frozen[name])
            self._frozen = store.frozen, segment
        return self._frozen[1]


def _segment(nbytes: int, reserve: Callable[[int], None]) -> Segment:
    """Returns new memory that helpers can map; raises OutOfMemory."""
    reserve(nbytes)
    try:
        return Segment(nbytes)
    except OSError as error:
        raise OutOfMemory(
            f"the system gives no {nbytes:,} bytes to share with other processes: {error}; call again, or use a "
            "smaller data_parallel"
        ) from error


def _part(batch: Batch, place: int) -> Part:
    kinds = {name: (array.dtype, array.shape) for name, array in batch.parts[place].items()}
    seed, number = batch.key
    return Part(kinds, batch.outputs, (seed, number + place), float(batch.sizes[place]), batch.scale)


def _all_parts(working: Working, times: float, pace: Pace, cost: Cost) -> None:
    """Admits all parts of a batch, the first of which, the largest, takes this; has `pace` know what that is."""
    pace.nbytes = cost.nbytes
    working(replace(cost, flops=round(cost.flops * times), nbytes=round(cost.nbytes * times)))


def _admitted(_: Cost) -> None:
    """Admits a part that was admitted with the first."""


def _combine(parts: Sequence[Mapping[str, Array]], total: int) -> None:
    """Makes the arrays of the first of the weighted gradients their sum, in their order, divided by the total."""
    with np.errstate(all="ignore"):
        for name, array in parts[0].items():
            flat = [each[name].reshape(-1) for each in parts]
            for start in range(0, array.size, BLOCK):
                first, *others = [each[start : start + BLOCK] for each in flat]
                for other in others:
                    np.add(first, other, out=first)
                np.divide(first, float(total), out=first)
