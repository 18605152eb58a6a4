"""A process that computes parts of batches for the one that started it, whose socket is its standard input.

It ends with that process, however that ends, and when it was not asked for anything for IDLE_SECONDS. The numbers are
those that the other process would get: it is the same program on the same processor, with as many threads.
"""

import contextlib
import signal
import socket
import sys
from collections.abc import Mapping

from backwire_server.engine.errors import EngineError
from backwire_server.engine.graph import Array, Graph
from backwire_server.engine.model import Model, Pass
from backwire_server.parallel import part, task
from backwire_server.parallel.kept import KEPT_BYTES, Passes
from backwire_server.parallel.segment import Segment
from backwire_server.parallel.task import Answer, Result, Task

IDLE_SECONDS = 60.0


class Known:
    """A graph that there were tasks for, and arrays in segments: the same objects each time, as programs are bound."""

    def __init__(self, graph: Graph) -> None:
        self.model = Model(graph)
        self._layout, self._frozen_kinds = part.layout_of(graph), part.frozen_kinds(graph)
        self._views: dict[int, dict[str, Array]] = {}

    def vectors(self, segment: Segment) -> dict[str, Array]:
        """Returns the trainable parameters, or their gradients, that lie in a segment."""
        if segment.number not in self._views:
            self._views[segment.number] = self._layout.views(segment.vectors(self._layout))
        return self._views[segment.number]

    def frozen(self, segment: Segment) -> dict[str, Array]:
        """Returns the frozen parameters that lie in a segment."""
        if segment.number not in self._views:
            self._views[segment.number] = segment.arrays(self._frozen_kinds)
        return self._views[segment.number]

    def drop(self, number: int) -> None:
        """Forgets the arrays in a segment."""
        self._views.pop(number, None)


class Helper:
    """Does one task after another.

    Attributes:
        passes: What it keeps of passes.
    """

    def __init__(self, pass_bytes: int = KEPT_BYTES) -> None:
        """Keeps at most so many bytes of passes."""
        self.passes = Passes(pass_bytes)
        self._segments: dict[int, Segment] = {}
        self._known: dict[int, Known] = {}

    def perform(self, work: Task, descriptors: list[int]) -> Result | None:
        """Does a task; returns None where the engine refuses to, for whoever asked to find out why."""
        for (number, nbytes), descriptor in zip(work.given, descriptors, strict=True):
            self._segments[number] = Segment(nbytes, number, descriptor)
        self.passes.release(work.released)
        for number in work.forgotten:
            self._known.pop(number, None)
        for number in work.dropped:
            self._segments.pop(number, None)
            for known in self._known.values():
                known.drop(number)
        if work.graph is not None:
            self._known[work.model] = Known(work.graph)
        known = self._known[work.model]
        trainable, frozen, inputs, gradients = (self._segments[number] for number in work.segments)
        parameters = {**known.vectors(trainable), **known.frozen(frozen)}
        given, seeds = part.given(work.part, inputs)
        try:
            found = self._pass(work, known.model, given, parameters)
            return part.result(known.model, work.part, found, seeds, known.vectors(gradients))
        except EngineError:
            return None

    def _pass(self, work: Task, model: Model, inputs: Mapping[str, Array], parameters: Mapping[str, Array]) -> Pass:
        """Returns the pass of a part, which may have been kept, or is kept from now on."""
        if work.part.differentiates or not work.residue:
            kept = self.passes.find(work.residue, work.place)
            return kept or part.forward(model, work.part, inputs, parameters)
        own = {name: array.copy() for name, array in inputs.items()}  # those of the next part will lie there
        found = part.forward(model, work.part, own, parameters)
        self.passes.add(work.residue, work.place, found)
        return found


def main() -> int:
    """Does tasks until there are none, and returns the exit status 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the terminal is for the process that started this
    helper = Helper(*map(int, sys.argv[1:]))
    with socket.socket(fileno=0) as connection, contextlib.suppress(EOFError, OSError):  # a timeout is one, too
        connection.settimeout(IDLE_SECONDS)
        task.send(connection, None)
        while True:
            result = helper.perform(*task.receive(connection))
            task.send(connection, Answer(result, helper.passes.nbytes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
