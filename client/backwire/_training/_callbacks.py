"""What may happen between the steps and epochs of a `fit`: stop early, keep the best, lower the learning rate."""

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from backwire._arrays import Array
from backwire._errors import InvalidRequestError
from backwire._info import TrainStepResult
from backwire._training._history import LOSS, Epoch, History

Better = Literal["lower", "higher"]


@dataclass(slots=True)
class Training:
    """Where a `fit` stands; what callbacks are given.

    Attributes:
        session: The session that is trained.
        history: What happened so far.
        epoch: Which epoch this is; the first is 1.
        epochs: How many there shall be.
        learning_rate: The rate of the steps that are sent from now on; None for the optimizer's. Callbacks may set it.
    """

    session: Any
    history: History
    epoch: int
    epochs: int
    learning_rate: float | None = None

    def stop(self, reason: str) -> None:
        """Ends the training after this epoch; during an epoch, after the steps that are on their way."""
        self.history.stopped = reason


class Callback:
    """What `fit` calls between steps and epochs; subclasses override what they need.

    A method may be a generator, which then yields calls without arguments for `fit` to make, and is sent what they
    return: `info = yield training.session.info`. So one callback serves sessions of both kinds, and those of
    `backwire.aio` may also have methods that are coroutines.

    Example:
        >>> class Tell(bw.Callback):
        ...     def on_epoch(self, training, epoch):
        ...         print(epoch.number, epoch.figure("loss"))
        >>> x = bw.input("x", ("batch",))
        >>> session = client.create_session(bw.squared_error(bw.parameter("w", 0.0) * x, 3 * x), bw.SGD(0.25))
        >>> _ = session.fit({"x": [1.0]}, epochs=2, callbacks=[Tell()])
        1 9.0
        2 2.25
    """

    def on_begin(self, training: Training) -> Any:
        """Called before the first step."""

    def on_step(self, training: Training, result: TrainStepResult) -> Any:
        """Called with the result of each step, while the next are on their way already."""

    def on_epoch(self, training: Training, epoch: Epoch) -> Any:
        """Called after each epoch and its validation, with nothing on its way."""

    def on_end(self, training: Training) -> Any:
        """Called after the last epoch; not when an error ends the training."""


@dataclass(slots=True)
class _Watch(Callback):
    monitor: str = LOSS
    better: Better = "lower"
    minimum_change: float = 0.0
    best: float = field(default=math.nan, init=False)
    epochs_since: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise InvalidRequestError(f"better={self.better!r} is unknown; use 'lower' or 'higher'", field="better")

    def improved(self, epoch: Epoch) -> bool:
        """Notes the figure of an epoch and tells whether it is the best so far."""
        figure = epoch.figure(self.monitor)
        gain = self.best - figure if self.better == "lower" else figure - self.best
        first = math.isnan(self.best) and not math.isnan(figure)
        if first or gain > self.minimum_change:
            self.best, self.epochs_since = figure, 0
            return True
        self.epochs_since += 1
        return False


@dataclass(slots=True)
class EarlyStopping(_Watch):
    """Ends the training when a figure has not become better for `patience` epochs.

    Attributes:
        monitor: `"loss"` or a metric: that of the validation data where there is some, else that of training.
        better: Whether `"lower"` or `"higher"` is better.
        minimum_change: By how much a figure must be better than the best so far.
        patience: How many epochs may pass without that, 1 or more.

    Example:
        >>> x = bw.input("x", ("batch",))
        >>> session = client.create_session(bw.squared_error(bw.parameter("w", 0.0) * x, 3 * x), bw.SGD(0.5))
        >>> session.fit({"x": [1.0]}, epochs=50, callbacks=[bw.EarlyStopping(patience=2)])
        <History: 4 epochs, 4 steps, loss 0, stopped: loss was not better than 0 for 2 epochs>
    """

    patience: int = 3

    def __post_init__(self) -> None:
        _Watch.__post_init__(self)
        if self.patience < 1:
            raise InvalidRequestError(f"patience={self.patience} stops at once; use 1 or more", field="patience")

    def on_epoch(self, training: Training, epoch: Epoch) -> None:
        """Stops when it is time to."""
        if not self.improved(epoch) and self.epochs_since >= self.patience:
            training.stop(f"{self.monitor} was not better than {self.best:.4g} for {self.epochs_since} epochs")


@dataclass(slots=True)
class ReduceOnPlateau(_Watch):
    """Multiplies the learning rate when a figure has not become better for `patience` epochs.

    The rate is that of the last step, and stays what it becomes here: a schedule of the optimizer no longer counts.

    Attributes:
        monitor: See `EarlyStopping`.
        better: See `EarlyStopping`.
        minimum_change: See `EarlyStopping`.
        patience: How many epochs may pass, 1 or more.
        factor: What the rate is multiplied by, in (0, 1).
        minimum: The rate that it never falls below.

    Example:
        >>> callback = bw.ReduceOnPlateau("accuracy", better="higher", patience=5, factor=0.3)
    """

    patience: int = 3
    factor: float = 0.1
    minimum: float = 0.0

    def __post_init__(self) -> None:
        _Watch.__post_init__(self)
        if self.patience < 1 or not 0 < self.factor < 1:
            raise InvalidRequestError(f"{self} cannot work; give patience >= 1 and 0 < factor < 1", field="factor")

    def on_epoch(self, training: Training, epoch: Epoch) -> None:
        """Lowers the rate when it is time to."""
        if not self.improved(epoch) and self.epochs_since >= self.patience:
            training.learning_rate = max(self.minimum, epoch.learning_rate * self.factor)
            self.epochs_since = 0


@dataclass(slots=True)
class BestCheckpoint(_Watch):
    """Keeps the state of the best epoch, and goes back to it in the end.

    Attributes:
        monitor: See `EarlyStopping`.
        better: See `EarlyStopping`.
        minimum_change: See `EarlyStopping`.
        name: Where it is kept: as the checkpoint of this name on the server, with step number and the optimizer's
            memory; or None for the parameters alone, in this process, which works for sessions that are not durable.
        restore: Whether to go back to it; False only keeps it.
        parameters: The best parameters, where they are kept here.

    Example:
        >>> y = bw.input("y", ("batch",))
        >>> session = client.create_session(bw.mean((bw.parameter("w", 0.0) - y) ** 2), bw.SGD(0.25))
        >>> best = bw.BestCheckpoint()
        >>> _ = session.fit({"y": [3.0]}, validation={"y": [2.0]}, epochs=5, callbacks=[best])
        >>> best.best, float(session.parameters()["w"])
        (0.0625, 2.25)
    """

    name: str | None = None
    restore: bool = True
    parameters: dict[str, Array] = field(default_factory=dict, init=False, repr=False)

    def on_epoch(self, training: Training, epoch: Epoch) -> Generator[Any, Any, None]:
        """Keeps the state when it is the best."""
        if not self.improved(epoch):
            return
        if self.name is None:
            self.parameters = yield training.session.parameters
        else:
            yield partial(training.session.save_checkpoint, self.name)

    def on_end(self, training: Training) -> Generator[Any, Any, None]:
        """Goes back to the best state."""
        if not self.restore or math.isnan(self.best):
            return
        if self.name is None:
            yield partial(training.session.set_parameters, self.parameters)
        else:
            yield partial(training.session.restore_checkpoint, self.name)
