"""Training on whole data sets: `fit`, `evaluate`, `predict`, and the loop over steps that they rest on, awaited."""

import inspect
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Any, TypeVar, overload

from backwire._arrays import Array
from backwire._info import TrainStepResult
from backwire._training._callbacks import Callback
from backwire._training._course import Course
from backwire._training._data import Data, source
from backwire._training._fit import Fit
from backwire._training._history import History
from backwire._training._passes import BATCH_SIZE, DEPTH, Reading, evaluation, prediction
from backwire._training._steps import Steps
from backwire._wire._messages import Arrays, NonFinite, Normalize
from backwire.aio._pipeline import Pipeline
from backwire.aio._pipeline_stream import PipelineFuture
from backwire.aio._session_base import SessionBase

T = TypeVar("T")


class FittedSession(SessionBase, ABC):
    """What a session does with whole data sets; see `Session`."""

    @abstractmethod
    def pipeline(self, *, depth: int = 8, timeout: float | None = None) -> Pipeline:
        """See `Session.pipeline`."""

    async def fit(
        self,
        data: Data,
        *,
        epochs: int = 1,
        batch_size: int = BATCH_SIZE,
        validation: Data | float | None = None,
        metrics: Sequence[str] = (),
        callbacks: Sequence[Callback] = (),
        shuffle: bool | None = None,
        seed: int = 0,
        history: History | None = None,
        progress: bool | None = None,
        depth: int = DEPTH,
        learning_rate: float | None = None,
        non_finite: NonFinite = "reject",
        normalize: Normalize = "sum",
        weight: float | None = None,
        timeout: float | None = None,
    ) -> History:
        """Does what `backwire.Session.fit` does.

        Data may also be an asynchronous iterable of batches, or a function that returns one. Other data is read on the
        event loop, where nothing else goes on meanwhile.

        Example:
            >>> async def train(client):
            ...     y = bw.input("y", ("batch",))
            ...     session = await client.create_session(bw.mean((bw.parameter("w", 0.0) - y) ** 2), bw.SGD(0.25))
            ...     return await session.fit({"y": [2.0, 2.0]}, epochs=3)
            >>> run(train)
            <History: 3 epochs, 3 steps, loss 0.25>
        """
        self._check_open()
        course = Fit(
            session=self,
            inputs=self._created.inputs,
            reading=Reading(size=batch_size, depth=depth, metrics=metrics, progress=progress, timeout=timeout),
            epochs=epochs,
            callbacks=callbacks,
            history=History() if history is None else history,
            learning_rate=learning_rate,
            settings={"non_finite": non_finite, "normalize": normalize, "weight": weight},
        )
        return await drive(course.course(data, validation, shuffle, seed))

    async def evaluate(
        self,
        data: Data,
        *,
        batch_size: int = BATCH_SIZE,
        metrics: Sequence[str] = (),
        progress: bool | None = None,
        depth: int = DEPTH,
        timeout: float | None = None,
    ) -> dict[str, float]:
        """Does what `backwire.Session.evaluate` does."""
        self._check_open()
        batches = source(data, self._created.inputs, size=batch_size, shuffle=False, seed=0)
        reading = Reading(size=batch_size, depth=depth, metrics=metrics, progress=progress, timeout=timeout)
        return await drive(evaluation(self, self._created.inputs, batches, reading))

    @overload
    async def predict(
        self,
        data: Data,
        outputs: str,
        *,
        batch_size: int = ...,
        progress: bool | None = ...,
        depth: int = ...,
        timeout: float | None = ...,
    ) -> Array: ...

    @overload
    async def predict(
        self,
        data: Data,
        outputs: Sequence[str] | None = None,
        *,
        batch_size: int = ...,
        progress: bool | None = ...,
        depth: int = ...,
        timeout: float | None = ...,
    ) -> dict[str, Array]: ...

    async def predict(
        self,
        data: Data,
        outputs: str | Sequence[str] | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool | None = None,
        depth: int = DEPTH,
        timeout: float | None = None,
    ) -> dict[str, Array] | Array:
        """Does what `backwire.Session.predict` does."""
        self._check_open()
        names = [outputs] if isinstance(outputs, str) else list(outputs or self.outputs)
        batches = source(data, self._created.inputs, size=batch_size, shuffle=False, seed=0)
        reading = Reading(size=batch_size, depth=depth, progress=progress, timeout=timeout)
        found = await drive(prediction(self, self._created.inputs, batches, reading, names))
        return found[outputs] if isinstance(outputs, str) else found

    async def train_steps(
        self,
        batches: Iterable[Arrays] | AsyncIterable[Arrays],
        *,
        depth: int = DEPTH,
        outputs: Sequence[str] = (),
        learning_rate: float | None = None,
        non_finite: NonFinite = "reject",
        normalize: Normalize = "sum",
        weight: float | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[TrainStepResult, None]:
        """Does what `backwire.Session.train_steps` does, also for batches that arrive asynchronously.

        Use `contextlib.aclosing` for a loop that may be left early, so that it has waited for what was on its way.
        """
        waiting: deque[PipelineFuture[TrainStepResult]] = deque()
        steps = Steps()
        async with self.pipeline(depth=depth, timeout=timeout) as pipe:
            async for batch in _arriving(batches):
                future = await pipe.train_step(
                    batch,
                    depends="previous",
                    outputs=outputs,
                    learning_rate=learning_rate,
                    non_finite=non_finite,
                    normalize=normalize,
                    weight=weight,
                )
                waiting.append(future)
                if len(waiting) >= depth:
                    yield steps.noted(await waiting.popleft())
            while waiting:
                yield steps.noted(await waiting.popleft())


async def drive(course: Course[T]) -> T:
    """Makes the calls of a course, awaits them where they are awaitable, and returns its outcome."""
    try:
        operation = next(course)
        while True:
            try:
                value: Any = operation()
                if inspect.isawaitable(value):
                    value = await value
            except BaseException as error:
                operation = course.throw(error)
            else:
                operation = course.send(value)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _arriving(batches: Iterable[Arrays] | AsyncIterable[Arrays]) -> AsyncIterator[Arrays]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch
