"""TensorBoard: how a `fit` goes, as event files that TensorBoard shows."""

import os
import secrets
import weakref
from dataclasses import dataclass, field
from typing import Any

from backwire._extras import needed
from backwire._info import TrainStepResult
from backwire._training._callbacks import Callback, Training
from backwire._training._history import Epoch

_FLUSH_SECONDS = 5


@dataclass(slots=True)
class TensorBoard(Callback):
    """Writes the figures of every step and epoch to event files, which `tensorboard --logdir DIRECTORY` shows live.

    Needs the extra `tensorboard`. Of each step there are `step/loss`, `step/gradient_norm` and `step/learning_rate`, by
    the session's step number. Of each epoch there are `epoch/loss` and metrics, and those of the validation data as
    `validation/loss` and so on, by the number of the epoch. What was given so far is on disk after every epoch, and at
    the latest after 5 seconds; also when an error ends the training, once this object or the program ends.

    Attributes:
        directory: Where the files go; it is made where it is missing. Each `fit` adds a file of its own.

    Example:
        >>> callback = bw.TensorBoard("runs/first")  # then session.fit(data, callbacks=[callback])
    """

    directory: str | os.PathLike[str]
    _writer: Any = field(default=None, init=False, repr=False, compare=False)
    _closing: Any = field(default=None, init=False, repr=False, compare=False)

    def on_begin(self, training: Training) -> None:  # noqa: ARG002
        """Begins a file; raises MissingExtraError where tensorboardX is not installed."""
        self._close()
        module = needed("tensorboardX", "tensorboard")
        unique = f".{secrets.token_hex(4)}"  # the rest of a file's name is the second in which it was begun
        folder = os.fspath(self.directory)
        self._writer = module.SummaryWriter(folder, flush_secs=_FLUSH_SECONDS, filename_suffix=unique)
        self._closing = weakref.finalize(self, self._writer.close)

    def on_step(self, training: Training, result: TrainStepResult) -> None:  # noqa: ARG002
        """Writes the figures of a step."""
        for name in ("loss", "gradient_norm", "learning_rate"):
            self._writer.add_scalar(f"step/{name}", getattr(result, name), result.step)

    def on_epoch(self, training: Training, epoch: Epoch) -> None:  # noqa: ARG002
        """Writes the figures of an epoch."""
        for kind, figures in (("epoch", epoch.figures), ("validation", epoch.validation)):
            for name, figure in figures.items():
                self._writer.add_scalar(f"{kind}/{name}", figure, epoch.number)
        self._writer.flush()

    def on_end(self, training: Training) -> None:  # noqa: ARG002
        """Ends the file."""
        self._close()

    def _close(self) -> None:
        if self._closing is not None:
            self._closing()
