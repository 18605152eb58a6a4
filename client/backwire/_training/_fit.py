"""The loop of `fit`, without any I/O."""

import inspect
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from backwire._errors import BackwireError, InvalidRequestError
from backwire._errors_session import FailedPreconditionError
from backwire._info import InputInfo, TrainStepResult
from backwire._training._callbacks import Callback, Training
from backwire._training._course import Course, closed, next_batch
from backwire._training._data import Batches, Columns, Data, Source, examples, share, source
from backwire._training._history import History
from backwire._training._passes import Reading, evaluation
from backwire._training._progress import Progress
from backwire._training._steps import Steps


@dataclass(slots=True, kw_only=True)
class Fit:
    """One training: what it is told, and where it stands.

    Attributes:
        session: The session.
        inputs: Those of its graph.
        reading: How data is sent.
        epochs: How many epochs the history shall have in the end.
        callbacks: What is called between steps and epochs.
        history: Where it is written down.
        learning_rate: That of all steps; None for the optimizer's.
        settings: What else every step is told.
    """

    session: Any
    inputs: Sequence[InputInfo]
    reading: Reading
    epochs: int
    callbacks: Sequence[Callback]
    history: History
    learning_rate: float | None
    settings: Mapping[str, Any]
    _waiting: "deque[tuple[int, Any]]" = field(default_factory=deque, init=False)
    _steps: Steps = field(default_factory=Steps, init=False)

    def course(self, data: Data, validation: Data, shuffle: bool | None, seed: int) -> Course[History]:
        """Trains, and returns the history; left by an error, it notes the steps that were on their way."""
        if self.epochs < 1:
            raise InvalidRequestError(f"epochs={self.epochs} trains nothing; use 1 or more", field="epochs")
        train = source(data, self.inputs, size=self.reading.size, shuffle=shuffle, seed=seed)
        train, held = self._validation(train, validation)
        yield from self._check_history()
        history, bar = self.history, self._bar(train)
        history.stopped = ""
        training = Training(self.session, history, len(history.epochs) + 1, self.epochs, self.learning_rate)
        quietly = replace(self.reading, progress=False)  # there is a bar already
        pipe = self.session.pipeline(depth=self.reading.depth, timeout=self.reading.timeout)
        try:
            yield from self._call("on_begin", training)
            while len(history.epochs) < self.epochs and not history.stopped:
                training.epoch, started = len(history.epochs) + 1, time.perf_counter()
                skip = yield from self._applied(training.epoch)
                yield from self._epoch(pipe, train.epoch(training.epoch, skip), training, bar)
                if not (skip or history.unfinished.batches):
                    raise InvalidRequestError(f"epoch {training.epoch} has no batches; give data that is not empty")
                figures = (yield from evaluation(self.session, self.inputs, held, quietly)) if held else {}
                epoch = history.finish(figures, time.perf_counter() - started)
                yield from self._call("on_epoch", training, epoch)
            yield from self._call("on_end", training)
            if self.callbacks:  # which may have gone back to an earlier step
                history.step = (yield self.session.info).step
        finally:
            bar.close()
            yield from self._settle()
            yield from closed(pipe)
        return history

    def _validation(self, train: Source, validation: Data) -> tuple[Source, Source | None]:
        held_share = share(validation)
        if validation is None or held_share is None:
            return train, None if validation is None else source(
                validation, self.inputs, size=self.reading.size, shuffle=False, seed=0
            )
        if not isinstance(train, Columns):
            raise InvalidRequestError(
                "a share for validation needs the data as arrays; give validation data of its own", field="validation"
            )
        return train.split(held_share)

    def _check_history(self) -> Course[None]:
        if self.history.step is None:
            return
        now = (yield self.session.info).step
        if now < self.history.step:
            raise FailedPreconditionError(
                f"the history goes up to step {self.history.step}, but the session is at step {now}; "
                "go on with a new one"
            )

    def _applied(self, number: int) -> Course[int]:
        """Returns how many batches of an epoch were applied already, also when nobody saw the answers."""
        history = self.history
        now: int = (yield self.session.info).step
        history.step = now
        self._steps.found(now)
        if history.begun[0] != number:
            history.begin(number, now)
        return max(now - history.begun[1], history.unfinished.batches)

    def _epoch(self, pipe: Any, batches: Batches, training: Training, bar: Progress) -> Course[None]:
        while not training.history.stopped:
            batch = yield from next_batch(batches)
            if batch is None:
                break
            future = yield partial(
                pipe.train_step,
                batch,
                depends="previous",
                outputs=self.reading.metrics,
                learning_rate=training.learning_rate,
                **self.settings,
            )
            self._waiting.append((examples(batch, self.inputs), future))
            if len(self._waiting) >= self.reading.depth:
                yield from self._result(training, bar)
        while self._waiting:
            yield from self._result(training, bar)

    def _result(self, training: Training, bar: Progress) -> Course[None]:
        result = yield self._waiting[0][1].result
        self._note(result)
        bar.step(f"epoch {training.epoch} of {self.epochs}", training.history.unfinished)
        yield from self._call("on_step", training, result)

    def _note(self, result: TrainStepResult) -> None:
        size, _ = self._waiting.popleft()
        self.history.note(
            self._steps.noted(result),
            size,
            {name: float(np.mean(result.outputs[name])) for name in self.reading.metrics},
        )

    def _settle(self) -> Course[None]:
        """Notes what is on its way, up to the first that fails."""
        try:
            while self._waiting:
                self._note((yield self._waiting[0][1].result))
        except BackwireError:
            self._waiting.clear()

    def _call(self, hook: str, *arguments: Any) -> Course[None]:
        for callback in self.callbacks:
            outcome = getattr(callback, hook)(*arguments)
            if inspect.isgenerator(outcome):
                yield from outcome
            elif inspect.isawaitable(outcome):
                yield partial(_itself, outcome)

    def _bar(self, train: Source) -> Progress:
        total = None if train.batches is None else train.batches * (self.epochs - len(self.history.epochs))
        return Progress(self.reading.progress, total, "training")


def _itself(outcome: Any) -> Any:
    return outcome
