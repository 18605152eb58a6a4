"""The loops of `evaluate` and `predict`, and how data is read in all loops over it."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backwire._arrays import Array
from backwire._errors import InvalidRequestError, ShapeError
from backwire._info import InputInfo
from backwire._training._course import Course, closed, next_batch
from backwire._training._data import Source, examples
from backwire._training._history import LOSS, Means
from backwire._training._progress import Progress

BATCH_SIZE = 32
DEPTH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How data is cut into batches and sent.

    Attributes:
        size: The most examples in a batch.
        depth: How many batches are on their way at a time.
        metrics: The outputs whose means are figures.
        progress: Whether a bar is shown; see `Session.fit`.
        timeout: The most seconds to wait for a result; None for the client's.
    """

    size: int
    depth: int
    metrics: Sequence[str] = ()
    progress: bool | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.metrics, str):
            object.__setattr__(self, "metrics", (self.metrics,))


def evaluation(session: Any, inputs: Sequence[InputInfo], data: Source, reading: Reading) -> Course[dict[str, float]]:
    """Returns the means of loss and metrics over the data, in eval mode."""
    means = Means()

    def take(forward: Any, size: int) -> None:
        figures = {} if forward.loss is None else {LOSS: forward.loss}
        means.add(size, {**figures, **{name: float(np.mean(forward.outputs[name])) for name in reading.metrics}})

    yield from _passes(session, inputs, data, reading, reading.metrics or (LOSS,), take)
    return means.means()


def prediction(
    session: Any, inputs: Sequence[InputInfo], data: Source, reading: Reading, outputs: Sequence[str]
) -> Course[dict[str, Array]]:
    """Returns the outputs for all examples, in their order, in eval mode."""
    parts: dict[str, list[Array]] = {name: [] for name in outputs}

    def take(forward: Any, size: int) -> None:
        for name in outputs:
            value = forward.outputs[name]
            if value.shape[:1] != (size,):
                raise ShapeError(
                    f"output {name!r} has shape {list(value.shape)} for {size} examples, and no row for each; "
                    "ask for it with forward",
                    field=f"outputs[{name}]",
                )
            parts[name].append(value)

    yield from _passes(session, inputs, data, reading, outputs, take)
    if not any(parts.values()):
        raise InvalidRequestError("there are no batches to predict; give data that is not empty", field="data")
    return {name: np.concatenate(found) for name, found in parts.items()}


def _passes(
    session: Any,
    inputs: Sequence[InputInfo],
    data: Source,
    reading: Reading,
    outputs: Sequence[str],
    take: Callable[[Any, int], None],
) -> Course[None]:
    """Gives the result of a forward for each batch to `take`, in order."""
    waiting: deque[tuple[int, Any]] = deque()
    bar = Progress(reading.progress, data.batches, "evaluating")
    pipe = session.pipeline(depth=reading.depth, timeout=reading.timeout)
    try:
        batches = data.epoch(1)
        while True:
            batch = yield from next_batch(batches)
            if batch is not None:
                future = yield partial(pipe.forward, batch, mode="eval", outputs=outputs)
                waiting.append((examples(batch, inputs), future))
            while waiting and (batch is None or len(waiting) >= reading.depth):
                size, future = waiting.popleft()
                take((yield future.result), size)
                bar.step("evaluating")
            if batch is None:
                return
    finally:
        bar.close()
        yield from closed(pipe)
