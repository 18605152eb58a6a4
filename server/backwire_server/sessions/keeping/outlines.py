"""What sessions tell of what they were made from, so that those on disk alone need not be read to be listed."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

from backwire_server.engine.graph import DType, Input, Parameter
from backwire_server.optim import Optimizer
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.spec import SessionSpec

MOST = 65_536
MOST_BYTES = 32 << 20
"""What is kept of all sessions; past it those that were asked for longest ago are read again."""

_Parts = tuple[tuple[Input, ...], tuple[Parameter, ...], tuple[str, ...], Optimizer | None]


@dataclass(frozen=True, slots=True)
class Outline:
    """What a session tells of its specification."""

    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    has_loss: bool
    optimizer: Optimizer | None
    seed: int
    max_staleness: int | None
    executor: Executor
    data_parallel: int
    precision: DType

    @classmethod
    def of(cls, spec: SessionSpec) -> "Outline":
        """Returns that of a specification."""
        graph = spec.graph
        return cls(
            graph.inputs,
            graph.parameters,
            tuple(sorted(graph.outputs)),
            graph.loss is not None,
            spec.optimizer,
            spec.seed,
            spec.max_staleness,
            spec.executor,
            spec.data_parallel,
            graph.precision,
        )

    @property
    def nbytes(self) -> int:
        """Roughly the bytes that it takes to say all this."""
        return 1_024 + 256 * (len(self.inputs) + len(self.parameters) + len(self.outputs))

    @property
    def parts(self) -> _Parts:
        """What takes room, and is the same for many sessions."""
        return self.inputs, self.parameters, self.outputs, self.optimizer


class Outlines:
    """The outlines of definitions, which never change. May be used by several threads at once."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        """Keeps that many at most, whose parts take that many bytes; what is equal in several takes room once."""
        self._most = most
        self._most_bytes = most_bytes
        self._mutex = threading.Lock()
        self._known: OrderedDict[str, Outline] = OrderedDict()
        self._parts: dict[_Parts, tuple[_Parts, int]] = {}
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, definition: str) -> Outline | None:
        """Returns what was kept of the definition with this digest; None where nothing is."""
        with self._mutex:
            found = self._known.get(definition)
            if found is not None:
                self._known.move_to_end(definition)
            return found

    def keep(self, definition: str, outline: Outline) -> Outline:
        """Keeps the outline of the definition with this digest, and returns it; its parts may be those of others."""
        with self._mutex:
            if (found := self._known.get(definition)) is not None:
                return found
            parts, users = self._parts.get(outline.parts, (outline.parts, 0))
            self._parts[parts] = parts, users + 1
            self._nbytes += 0 if users else outline.nbytes
            inputs, parameters, outputs, optimizer = parts
            own = replace(outline, inputs=inputs, parameters=parameters, outputs=outputs, optimizer=optimizer)
            self._known[definition] = own
            while len(self._known) > self._most or self._nbytes > self._most_bytes:
                self._drop_oldest()
            return own

    def _drop_oldest(self) -> None:
        _, gone = self._known.popitem(last=False)
        parts, users = self._parts.pop(gone.parts)
        if users > 1:
            self._parts[parts] = parts, users - 1
        else:
            self._nbytes -= gone.nbytes
