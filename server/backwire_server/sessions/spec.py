"""What a session is made from, checked against the limits before memory is taken for it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from backwire_server.engine.graph import Graph
from backwire_server.optim import FlatLayout, Optimizer
from backwire_server.parallel.split import MOST_PARTS, Split
from backwire_server.sessions.errors import GraphTooLarge, InvalidRequest
from backwire_server.sessions.executors import DEVICES, Executor
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.training.initializers import Initializer
from backwire_server.sessions.training.parameters import shape_of, trainable_layout
from backwire_server.sessions.training.versions import Array

Source = Array | Initializer


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """A graph, where the first value of each parameter comes from, optimizer if any, seed, and what computes it.

    `max_staleness` is how many steps may be between a pass and its Backward; None for any number. `data_parallel` is in
    how many parts batches are computed in training; 0 and 1 for at once. One that is `grouped` may be computed
    together with others, which the server decides; nobody keeps that.
    `definition` is all of this in the form of whoever made it, for whoever keeps it, and `outline` the same without
    first values that take room; they mean nothing here.
    """

    graph: Graph
    sources: Mapping[str, Source]
    optimizer: Optimizer | None = None
    seed: int = 0
    definition: bytes = b""
    outline: bytes = b""
    max_staleness: int | None = None
    executor: Executor = Executor.NUMPY
    data_parallel: int = 0
    grouped: bool = False

    def check(self, limits: Limits) -> None:
        """Raises GraphTooLarge when the parameters and constants together hold too many bytes.

        Raises InvalidRequest for a `max_staleness` or `data_parallel` that cannot be, and NotSplittable for a graph
        whose batches cannot be computed in parts.
        """
        if check_data_parallel(self.data_parallel) > 1:
            Split(self.graph)
        if self.max_staleness is not None and self.max_staleness < 0:
            raise InvalidRequest(
                f"max_staleness is {self.max_staleness}; give a number of steps of at least 0, or none",
                field="max_staleness",
            )
        nbytes = self.value_bytes
        if nbytes > limits.max_parameter_bytes:
            raise GraphTooLarge(
                f"the parameters and constants hold {nbytes:,} bytes, but a graph may have "
                f"{limits.max_parameter_bytes:,}; use fewer or smaller parameters",
                field="graph.parameters",
                quota="max_parameter_bytes",
            )

    @property
    def value_bytes(self) -> int:
        """The bytes of all parameters and constants."""
        parameters = sum(math.prod(shape_of(p)) * p.type.dtype.itemsize for p in self.graph.parameters)
        return parameters + sum(array.nbytes for array in self.graph.constants.values())

    @property
    def state_bytes(self) -> int:
        """The bytes that a session holds besides passes and answers: values, gradients, and the optimizer's memory.

        Raises GraphError for a parameter that cannot be trained, OptimizerError for a group that matches none.
        """
        layout = trainable_layout(self.graph)
        trainable = sum(size * dtype.itemsize for dtype, size in layout.sizes.items())
        vectors = 1 + _optimizer_vectors(self.optimizer, layout)
        states = 0 if self.executor is Executor.NUMPY else 2 * DEVICES.count  # what steps lead from, what they lead to
        return self.value_bytes + trainable * (vectors + states * vectors)

    def without_sources(self) -> "SessionSpec":
        """Returns the same without first values, for a session that has them."""
        return replace(self, sources={}, definition=self.outline)

    def draw(self) -> dict[str, Array]:
        """Returns the first value of every parameter."""
        return {
            name: source.draw(self.seed, name) if isinstance(source, Initializer) else source
            for name, source in self.sources.items()
        }


def check_data_parallel(count: int) -> int:
    """Returns a number of parts; raises InvalidRequest for one that is below 0 or above MOST_PARTS."""
    if not 0 <= count <= MOST_PARTS:
        raise InvalidRequest(
            f"data_parallel is {count:,}; give a number of parts from 1 to {MOST_PARTS}, or 0", field="data_parallel"
        )
    return count


def _optimizer_vectors(optimizer: Optimizer | None, layout: FlatLayout) -> int:
    """How many vectors, each as long as the parameters, the optimizer remembers at most."""
    if optimizer is None:
        return 0
    names = {name for part in optimizer.segments(layout) for name in part.rule.init(np.empty(0, part.dtype))}
    return len(names) + (optimizer.average_decay is not None)
