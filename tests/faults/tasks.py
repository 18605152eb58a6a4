"""What the sessions of fault tests train: two small float32 models, and batches that follow from a number."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire._info import Executor, Precision

Array = NDArray[Any]

ROWS, FEATURES, CLASSES = 4, 5, 3


@dataclass(frozen=True)
class Task:
    """A model, how it is trained, and a parameter of it that a script may set; the rest is as in `create_session`."""

    name: str
    loss: bw.Value
    optimizer: bw.Optimizer
    parameter: str
    shape: tuple[int, ...]
    data_parallel: int = 1
    max_staleness: int | None = None
    precision: Precision = "float32"
    executor: Executor = "numpy"

    def batch(self, number: int, rows: int = ROWS) -> dict[str, Array]:
        """Returns the inputs of this number."""
        draw = np.random.default_rng(number)
        x = draw.normal(size=(rows, FEATURES)).astype(np.float32)
        return {"x": x, "y": draw.integers(CLASSES, size=rows)}

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


def mixed_task(draw: np.random.Generator, executor: Executor) -> Task:
    """Returns a task with what sessions may be created with, drawn."""
    task = dropout_task() if draw.integers(3) else norm_task()
    splits = task.name == "dropout"
    return replace(
        task,
        name=f"mixed {task.name}",
        optimizer=_OPTIMIZERS[draw.integers(len(_OPTIMIZERS))],
        data_parallel=int(draw.integers(1, 4)) if splits else 1,
        max_staleness=(None, 0, 1, 3)[draw.integers(4)],
        precision=_PRECISIONS[draw.integers(len(_PRECISIONS))],
        executor=executor,
    )


_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")

_OPTIMIZERS = (
    bw.Adam(0.01, clip_norm=0.5),
    bw.AdamW(0.01, average_decay=0.9, clip_value=0.2),
    bw.SGD(0.05, momentum=0.9, schedule=bw.CosineSchedule(10), clip_parameter_norm=0.3),
    bw.LAMB(0.01),
)


def _inputs() -> tuple[bw.Value, bw.Value]:
    return bw.input("x", ("batch", FEATURES)), bw.input("y", ("batch",), dtype="int64")


TASKS = (dropout_task(), norm_task())
