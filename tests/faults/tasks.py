"""What the sessions of fault tests train: two small float32 models, and batches that follow from a number."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw

Array = NDArray[Any]

ROWS, FEATURES, CLASSES = 4, 5, 3


@dataclass(frozen=True)
class Task:
    """A model, how it is trained, and a parameter of it that a script may set."""

    name: str
    loss: bw.Value
    optimizer: bw.Optimizer
    parameter: str
    shape: tuple[int, ...]
    data_parallel: int = 1

    def batch(self, number: int) -> dict[str, Array]:
        """Returns the inputs of this number."""
        draw = np.random.default_rng(number)
        x = draw.normal(size=(ROWS, FEATURES)).astype(np.float32)
        return {"x": x, "y": draw.integers(CLASSES, size=ROWS)}

    def value(self, number: int) -> Array:
        """Returns a value of the parameter."""
        return np.random.default_rng(number).normal(size=self.shape).astype(np.float32)


def dropout_task() -> Task:
    """Dropout, whose masks follow from the seed and the number of the pass, and Adam."""
    x, y = _inputs()
    hidden = bw.dropout(bw.relu(bw.dense(x, 7, name="hidden")), 0.25)
    loss = bw.softmax_cross_entropy(bw.dense(hidden, CLASSES, name="logits"), y)
    return Task("dropout", loss, bw.Adam(0.01), "hidden/weight", (FEATURES, 7))


def norm_task() -> Task:
    """Batch normalization, whose running statistics each pass in training moves, and momentum."""
    x, y = _inputs()
    hidden = bw.relu(bw.batch_norm(bw.dense(x, 6, name="hidden"), name="norm"))
    loss = bw.softmax_cross_entropy(bw.dense(hidden, CLASSES, name="logits"), y)
    return Task("norm", loss, bw.SGD(0.05, momentum=0.9, clip_norm=1.0), "norm/mean", (6,))


def parts_task() -> Task:
    """The first, with each TrainStep in parts."""
    return replace(dropout_task(), name="parts", data_parallel=3)


def _inputs() -> tuple[bw.Value, bw.Value]:
    return bw.input("x", ("batch", FEATURES)), bw.input("y", ("batch",), dtype="int64")


TASKS = (dropout_task(), norm_task())
