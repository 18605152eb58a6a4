"""Batches of a session in parts, computed here and by helper processes at the same time."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from weakref import WeakSet

import numpy as np

from backwire_server.engine.binding import bind_inputs
from backwire_server.engine.cost import Admit
from backwire_server.engine.graph import Array, Graph
from backwire_server.engine.model import Model, Pass
from backwire_server.engine.seeds import check_seeds, check_wrt
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.optim import Views, summing
from backwire_server.optim.sharing import Hands
from backwire_server.parallel import crew, kept, part
from backwire_server.parallel.crew import Crew
from backwire_server.parallel.kept import Residue
from backwire_server.parallel.pace import Pace
from backwire_server.parallel.segment import Segment, packed_bytes, vector_kinds
from backwire_server.parallel.split import Split
from backwire_server.parallel.task import Part, Places, Result, Work, fresh_number
from backwire_server.sessions.errors import OutOfMemory
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.training.batches import Batch, Whole
from backwire_server.sessions.training.shares import Share, admitted, paid
from backwire_server.sessions.training.sources import Reserve, Source, new_segment
from backwire_server.sessions.training.working import Working

ALONE = Crew(0)


class Team:
    """Computes batches of a graph in parts; raises NotSplittable for a graph whose batches have none.

    Keeps memory between batches: for the gradients of all parts but the first, for what helpers read, and of passes for
    their Backward.
    """

    def __init__(self, graph: Graph, definition: bytes = b"", *, helped: bool = True) -> None:
        """Has helpers compute, too, unless it is told not to: they have numpy's kernels alone.

        `definition` is for those on other nodes; see Work.
        """
        self._helped = helped
        self._definition = definition
        self._paces: defaultdict[tuple[bool, bool], Pace] = defaultdict(Pace)
        self._split = Split(graph)
        self._graph = graph
        self._inputs = {item.name: item for item in graph.inputs}
        self._number = fresh_number()
        self._layout = part.layout_of(graph)
        self._elements = sum(self._layout.sizes.values())
        self._gradients: list[tuple[Segment, Views]] = []
        self._given: list[Segment] = []
        self._frozen: tuple[Mapping[str, Array], Segment] | None = None
        self._residues: WeakSet[Residue] = WeakSet()

    @property
    def nbytes(self) -> int:
        """The bytes of the memory that it keeps, but for what belongs to passes."""
        frozen = [self._frozen[1]] if self._frozen else []
        return sum(segment.nbytes for segment in (*self._given, *frozen, *(each for each, _ in self._gradients)))

    def count(self, inputs: Mapping[str, Array], most: int) -> int:
        """Returns how many parts `cut` makes of these inputs, which it takes."""
        return max(1, min(most, self._split.size(inputs)))

    def cut(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None,
        most: int,
        key: tuple[int, int],
        stop: Stop = NEVER,
    ) -> Batch:
        """Returns a batch in at most so many parts, of which these outputs are wanted, or all.

        Raises EngineError for wrong inputs, and for a loss or outputs that parts do not give; and Stopped.
        """
        whole = bind_inputs(self._inputs, inputs)
        parts = self._split.parts(whole, most)
        asked = None if outputs is None else tuple(outputs)
        wanted = tuple(self._graph.outputs) if asked is None else asked
        joints = self._split.joints(whole, wanted, stop) if len(parts) > 1 else {}
        return Batch(parts, [self._split.size(each) for each in parts], joints, asked, key)

    def differentiating(
        self,
        batch: Batch,
        inputs: Mapping[str, Array],
        seeds: Mapping[str, Array],
        wrt: Sequence[str],
        stop: Stop = NEVER,
    ) -> Batch:
        """Returns the batch of these inputs with what is to be differentiated; see `Model.backward`.

        Raises EngineError where that cannot be, for parts or for a whole batch as well, and Stopped.
        """
        check_wrt(self._inputs, wrt, inputs)
        joints: dict[str, int | None] = {}
        for name in seeds:
            joints |= self._split.joints(inputs, (name,), stop, field=f"output_gradients[{name}]")
        types = self._split.types(inputs, stop) if seeds else {}
        check_seeds(self._graph, seeds, types.get)
        return batch.differentiating(seeds, joints, {name: self._split.axis(name) for name in wrt})

    def compute(
        self,
        batch: Batch,
        model: Model,
        source: Source,
        room: Views,
        working: Working,
        stop: CallStop,
        reserve: Reserve,
    ) -> Whole:
        """Returns what a batch of several parts gives with these parameters; gradients are in `room` if that is any.

        Raises what the engine raises for one of the parts, what `working` and `reserve` raise, and Stopped.
        """
        if not batch.differentiates and not self._crew.is_alone:
            source.segment(reserve)  # before a pass holds them where nobody else can read them
        self._make_room(len(batch.parts), reserve)
        first = room or (self._layout.views(self._layout.zeros()) if batch.differentiates else Views())
        into = [first, *(arrays for _, arrays in self._gradients)]
        pace = self._paces[batch.purpose]
        share = Share(working, sum(batch.sizes) / batch.sizes[0], self._paces[True, False].nbytes * batch.repeats)

        def local(place: int) -> Result:
            admit = share if place == 0 else admitted
            seeds = batch.seeds[place] if batch.seeds else {}
            made = self._pass(batch, place, model, source, stop, admit, reserve)
            found = part.result(model, batch.part(place), made, seeds, into[place], stop, admit)
            if place == 0:
                pace.nbytes = share.nbytes
            return found

        placed = partial(self._placed, batch, source, reserve)
        count = len(batch.parts)
        try:
            results = self._crew.compute(
                Work(self._number, self._graph, count, placed, self._definition, pace, batch.residue), local, stop
            )
        except BaseException:
            self._gradients, self._given = [], []  # helpers may still write there
            raise
        norm = self._mean(batch, into[: len(results)], results[0].parameters) if batch.differentiates else None
        return batch.whole(results, {name: first[name] for name in results[0].parameters}, norm)

    def _mean(self, batch: Batch, parts: Sequence[Views], names: Collection[str]) -> float:
        """Makes the gradients of the first part those of the batch, and returns their norm."""
        for each in parts:
            for name in each.keys() - names:
                each[name][...] = 0
        vectors = [each.vectors for each in parts]
        return summing.divide_sum(vectors, batch.weights, batch.divisor, self.hands(len(parts)))

    def hands(self, most: int) -> Hands:
        """Returns at most so many hands for work on the vectors of all parameters."""
        return self._crew.hands(most, self._elements)

    @property
    def _crew(self) -> Crew:
        return crew.CREW if self._helped else ALONE

    def _pass(
        self, batch: Batch, place: int, model: Model, source: Source, stop: CallStop, admit: Admit, reserve: Reserve
    ) -> Pass:
        """Returns the pass of a part: the one that was kept, or a new one, which is kept if it is for a Backward."""
        asked, inputs, residue = batch.part(place), batch.parts[place], batch.residue
        if residue is not None and place in residue.passes:
            return residue.passes[place]
        if batch.repeats:
            admit = partial(paid, admit)
        made = part.forward(model, asked, inputs, source.arrays, stop, admit)
        if residue is not None and not batch.differentiates:
            self._keep(residue, place, made, reserve)
        return made

    def _keep(self, residue: Residue, place: int, made: Pass, reserve: Reserve) -> None:
        """Keeps the pass of a part as far as there is memory for it."""
        nbytes, most = kept.kept_bytes(made), min(kept.KEPT_BYTES, residue.most_bytes)
        if nbytes + sum(each.nbytes for each in self._residues) <= most:
            with suppress(OutOfMemory):
                reserve(nbytes)
                residue.passes[place] = made
                self._residues.add(residue)

    def _make_room(self, parts: int, reserve: Reserve) -> None:
        nbytes = packed_bytes(vector_kinds(self._layout))
        del self._gradients[parts - 1 :]
        for _ in range(parts - 1 - len(self._gradients)):
            segment = new_segment(nbytes, reserve)
            self._gradients.append((segment, self._layout.views(segment.vectors(self._layout))))

    def _placed(self, batch: Batch, source: Source, reserve: Reserve, place: int) -> tuple[Part, Places]:
        """Returns a part, and where what it needs lies, which is put there."""
        asked = batch.part(place)
        given = self._filled(asked, batch, place, reserve)
        frozen = self._frozen_in(source.frozen, reserve)
        return asked, Places(source.segment(reserve), frozen, given, self._gradients[place - 1][0])

    def _filled(self, asked: Part, batch: Batch, place: int, reserve: Reserve) -> Segment:
        nbytes = part.given_bytes(asked)
        while len(self._given) < place:
            self._given.append(Segment(1))
        if self._given[place - 1].nbytes < nbytes:
            self._given[place - 1] = new_segment(nbytes, reserve)
        inputs, seeds = part.given(asked, self._given[place - 1])
        for name, array in inputs.items():
            np.copyto(array, batch.parts[place][name])
        for name, array in seeds.items():
            np.copyto(array, batch.seeds[place][name])
        return self._given[place - 1]

    def _frozen_in(self, values: Mapping[str, Array], reserve: Reserve) -> Segment:
        known, segment = self._frozen or ({}, None)
        if segment is None or any(known[name] is not array for name, array in values.items()):
            kinds = part.frozen_kinds(self._graph)
            segment = new_segment(packed_bytes(kinds), reserve)
            for name, array in segment.arrays(kinds).items():
                np.copyto(array, values[name])
            self._frozen = values, segment
        return segment
