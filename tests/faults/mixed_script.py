"""Scripts that mix the features of a session, in an order that nobody would think of."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from tests.faults.script import PASSES, Deed, Writer

MOST_ROWS = 9
MOST_PARTS = 256
POLICIES = ("reject", "skip")
RATES = (None, 0.0, 0.02)


def mixed_script(draw: np.random.Generator, length: int) -> Iterator[Deed]:
    """Yields so many deeds."""
    writer = MixedWriter(draw)
    for _ in range(length):
        yield writer.next()


class MixedWriter(Writer):
    """Adds what features make possible together."""

    def __init__(self, draw: np.random.Generator) -> None:
        super().__init__(draw)
        self._kinds |= {
            self._train_with: 6,
            self._forward_in: 4,
            self._micro_batches: 3,
            self._late: 3,
            self._poisoned: 2,
            self._poisoned_branch: 1,
            self._both_branches: 1,
            self._pipe_all: 2,
            self._look: 2,
        }

    def _train_with(self) -> Deed:
        settings: dict[str, Any] = {
            "data_parallel": self._parts(),
            "learning_rate": RATES[self._draw.integers(len(RATES))],
            "normalize": self._one_of(("sum", "mean")),
            "non_finite": self._one_of(POLICIES),
            "weight": self._weight(),
        }
        chosen = {name: value for name, value in settings.items() if self._draw.integers(2)}
        return Deed("train_with", (self._batch(), self._rows(), chosen))

    def _forward_in(self) -> Deed:
        name = self._one_of([name for name in PASSES if name not in self._passes] or PASSES)
        if name not in self._passes:
            self._passes.append(name)
        return Deed("forward_in", (name, self._batch(), self._rows(), self._parts()))

    def _micro_batches(self) -> Deed:
        numbers = self._batches(3)
        return Deed("micro_batches", (numbers, [self._rows() for _ in numbers], self._parts()))

    def _late(self) -> Deed:
        return Deed("late", (self._batch(), self._batches(4)))

    def _poisoned(self) -> Deed:
        return Deed("poisoned", (self._batch(), {"non_finite": self._one_of(POLICIES), "data_parallel": self._parts()}))

    def _poisoned_branch(self) -> Deed:
        return Deed("poisoned_branch", (self._batch(),))

    def _both_branches(self) -> Deed:
        stays = bool(self._draw.integers(2))
        if stays:
            self._turn_back()
        return Deed("both_branches", (self._batches(2), stays))

    def _pipe_all(self) -> Deed:
        numbers = self._batches(3)
        return Deed("pipe_all", (numbers, [self._parts() for _ in numbers]))

    def _look(self) -> Deed:
        return Deed("look", (self._batch(), self._rows()))

    def _rows(self) -> int:
        return int(self._draw.integers(1, MOST_ROWS))

    def _parts(self) -> int:
        return int(self._draw.choice([1, 2, 3, 5, MOST_PARTS]))
