"""History: how a training went, step by step and epoch by epoch, as figures and as a picture."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from backwire import _html
from backwire._errors import UnknownNameError
from backwire._extras import needed
from backwire._info import TrainStepResult

LOSS = "loss"


@dataclass(frozen=True, slots=True)
class Epoch:
    """How one pass over the data went. Means are over examples, so that a smaller last batch counts less.

    Attributes:
        number: Which epoch it was; the first is 1.
        steps: How many steps it had.
        figures: The mean of the loss before each step, and of each metric, by name.
        validation: The same of the validation data after the epoch; empty without any.
        learning_rate: The learning rate of its last step.
        seconds: How long it took, validation included.
    """

    number: int
    steps: int
    figures: Mapping[str, float]
    validation: Mapping[str, float]
    learning_rate: float
    seconds: float

    def figure(self, name: str) -> float:
        """Returns the loss or a metric: that of the validation data where there is some, else that of training.

        NaN for an epoch whose results were all lost with a connection.
        """
        found = self.validation or self.figures
        if not found:
            return math.nan
        if name not in found:
            raise UnknownNameError(f"epochs have no figure {name!r}; they have {', '.join(found)}; see metrics=")
        return found[name]

    def named(self) -> dict[str, float]:
        """Returns all figures by name; those of the validation data as `validation loss` and so on."""
        return {**self.figures, **{f"validation {name}": value for name, value in self.validation.items()}}


@dataclass(slots=True)
class Means:
    """Running means of figures by name, weighted by how many examples each stands for."""

    examples: int = 0
    batches: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, examples: int, figures: Mapping[str, float]) -> None:
        """Takes in the figures of a batch."""
        self.examples += examples
        self.batches += 1
        for name, figure in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + examples * figure

    def means(self) -> dict[str, float]:
        """Returns the means so far, in the order in which the names first came."""
        return {name: total / self.examples for name, total in self.sums.items()} if self.examples else {}


@dataclass(slots=True, repr=False)
class History:
    """How a `Session.fit` went. Iterating yields the result of every step.

    Given to another `fit` of the same data, that goes on where this one ended, also in the middle of an epoch.

    Attributes:
        steps: The result of every step, without outputs.
        epochs: The epochs that are complete.
        stopped: Why training ended before its last epoch; empty when it did not.
        step: The session's step number when the history was last written to.
        begun: Which epoch began last, and at which step number.
        unfinished: The figures of that epoch so far.

    Example:
        >>> x = bw.input("x", ("batch",))
        >>> session = client.create_session(bw.squared_error(bw.parameter("w", 0.0) * x, 3 * x), bw.SGD(0.25))
        >>> history = session.fit({"x": [1.0, 1.0]}, epochs=3, batch_size=1)
        >>> [epoch.figures["loss"] for epoch in history.epochs]
        [5.625, 0.3515625, 0.02197265625]
        >>> history
        <History: 3 epochs, 6 steps, loss 0.02197>
    """

    steps: list[TrainStepResult] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    stopped: str = ""
    step: int | None = None
    begun: tuple[int, int] = (0, 0)
    unfinished: Means = field(default_factory=Means)

    def begin(self, number: int, step: int) -> None:
        """Begins an epoch at a step number."""
        self.unfinished = Means()
        self.begun = (number, step)

    def note(self, result: TrainStepResult, examples: int, figures: Mapping[str, float]) -> None:
        """Takes in the result of a step."""
        self.steps.append(replace(result, outputs={}))
        self.step = result.step
        self.unfinished.add(examples, {LOSS: result.loss, **figures})

    def finish(self, validation: Mapping[str, float], seconds: float) -> Epoch:
        """Completes the epoch and returns it."""
        done = self.unfinished
        rate = self.steps[-1].learning_rate if self.steps else math.nan
        number, first = self.begun
        steps = max((self.step or 0) - first, done.batches)
        epoch = Epoch(number, steps, done.means(), validation, rate, seconds)
        self.epochs.append(epoch)
        return epoch

    def series(self) -> dict[str, list[float]]:
        """Returns the figures of all epochs by name; those of the validation data as `validation loss` and so on."""
        found: dict[str, list[float]] = {}
        for epoch in self.epochs:
            for name, value in epoch.named().items():
                found.setdefault(name, []).append(value)
        return found

    def plot(self, path: Any = None) -> Any:
        """Returns matplotlib's figure of the loss of every step and of the figures of every epoch.

        With a path, or a file opened in binary mode, also writes it there; the extra `fit` has matplotlib.
        """
        figure = needed("matplotlib.figure", "fit").Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(*_curve([each.loss for each in self.steps]), linewidth=0.9)
        left.set(xlabel="step", ylabel=LOSS, title=f"{len(self.steps)} steps")
        for name, values in self.series().items():
            right.plot(*_curve(values), marker=".", label=name)
        right.set(xlabel="epoch", title=f"{len(self.epochs)} epochs")
        if self.epochs:
            right.legend(frameon=False)
        for axes in (left, right):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def __iter__(self) -> Iterator[TrainStepResult]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def _repr_html_(self) -> str:
        """What a notebook shows: the curve of the loss, and the last epochs."""
        head = _html.heading("History", f"{len(self.steps)} steps", *([self.stopped] if self.stopped else []))
        last = self.epochs[-_html.MOST_ROWS :]
        names = list(self.series())
        rows = [(each.number, *(each.named().get(name, "") for name in names), each.learning_rate) for each in last]
        losses = _html.curve([each.loss for each in self.steps])
        return head + losses + _html.table(("epoch", *names, "learning rate"), rows)

    def __repr__(self) -> str:
        last = self.epochs[-1] if self.epochs else None
        figures = "".join(f", {name} {value:.4g}" for name, value in last.named().items()) if last else ""
        stopped = f", stopped: {self.stopped}" if self.stopped else ""
        return f"<History: {len(self.epochs)} epochs, {len(self.steps)} steps{figures}{stopped}>"


def _curve(values: list[float]) -> tuple[Any, Any]:
    return np.arange(1, len(values) + 1), np.asarray(values)
