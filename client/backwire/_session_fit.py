"""Training on whole data sets: `fit`, `evaluate`, `predict`, and the loop over steps that they rest on."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from backwire._arrays import Array
from backwire._info import TrainStepResult
from backwire._pipeline import Pipeline, train_steps
from backwire._session_contents import SessionContents
from backwire._training._callbacks import Callback
from backwire._training._course import drive
from backwire._training._data import Data, source
from backwire._training._fit import Fit
from backwire._training._history import History
from backwire._training._passes import BATCH_SIZE, DEPTH, Reading, evaluation, prediction
from backwire._wire._messages import Arrays, NonFinite, Normalize


class FittedSession(SessionContents, ABC):
    """What a session does with whole data sets; see `Session`."""

    @abstractmethod
    def pipeline(self, *, depth: int = 8, timeout: float | None = None) -> Pipeline:
        """See `Session.pipeline`."""

    def fit(
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
        """Trains on all of the data, epoch after epoch, with the next batches on their way while one is computed.

        Each batch is a `train_step`, so a connection that breaks is replaced and no step is lost or done twice. An
        error or an interrupt leaves the session after a whole number of steps, which `history` then has; given to
        another `fit` with the same arguments, training goes on with the batch that comes next.

        Args:
            data: What is trained on, one of:

                - arrays, lists, tensors or columns by input name, with an example in each row;
                - a tuple of them, in the order of the graph's inputs;
                - a table, such as a DataFrame of pandas or polars or a Table of Arrow: its columns by input name;
                - an iterable of batches, such as a DataLoader of PyTorch or a generator, each batch a mapping, tuple,
                  list or table as above;
                - a function that returns such an iterable, for every epoch anew.
            epochs: How many times to go over the data, those in `history` included.
            batch_size: How many examples a step has, where the data is no series of batches.
            validation: Data on which to compute loss and metrics after each epoch, or a share between 0 and 1 of the
                examples to hold out for it.
            metrics: The names of outputs whose means are figures of each epoch, such as `bw.accuracy`.
            callbacks: What is called between steps and epochs, such as `EarlyStopping` and `BestCheckpoint`.
            shuffle: Whether each epoch has an order of its own; None shuffles what is no series of batches.
            seed: What the orders are drawn from: the same data, seed and session give the same bits.
            history: That of a `fit` to go on with, which is also returned.
            progress: Whether to show a bar, which needs the extra `fit`; None shows one on a terminal and in a notebook
                where tqdm is installed.
            depth: How many batches are on their way at a time.
            learning_rate: The same for all steps; None for the optimizer's, which may have a schedule.
            non_finite: See `step`.
            normalize: See `step`.
            weight: See `Forward.backward`.
            timeout: The most seconds to wait for a result; None for the client's timeout.

        Example:
            >>> x, y = bw.input("x", ("batch", 2)), bw.input("y", ("batch",), dtype="int64")
            >>> logits = bw.dense(x, 2, name="top")
            >>> right = bw.accuracy(logits, y)
            >>> graph = bw.graph(loss=bw.softmax_cross_entropy(logits, y), outputs={"accuracy": right})
            >>> session = client.create_session(graph, optimizer=bw.Adam(0.1))
            >>> points = [[-1.0, 0.5], [-2.0, 1.0], [1.0, 0.0], [2.0, -1.0]] * 8
            >>> history = session.fit((points, [0, 0, 1, 1] * 8), epochs=10, batch_size=8, metrics=["accuracy"])
            >>> history.epochs[-1].figures["accuracy"]
            1.0
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
        return drive(course.course(data, validation, shuffle, seed))

    def evaluate(
        self,
        data: Data,
        *,
        batch_size: int = BATCH_SIZE,
        metrics: Sequence[str] = (),
        progress: bool | None = None,
        depth: int = DEPTH,
        timeout: float | None = None,
    ) -> dict[str, float]:
        """Returns the means over all examples of the loss, as `"loss"`, and of metrics, in eval mode; changes nothing.

        Arguments are those of `fit`.

        Example:
            >>> x = bw.input("x", ("batch",))
            >>> session = client.create_session(bw.mean(bw.parameter("w", 2.0) * x))
            >>> session.evaluate({"x": [1.0, 2.0, 6.0]}, batch_size=2)
            {'loss': 6.0}
        """
        self._check_open()
        batches = source(data, self._created.inputs, size=batch_size, shuffle=False, seed=0)
        reading = Reading(size=batch_size, depth=depth, metrics=metrics, progress=progress, timeout=timeout)
        return drive(evaluation(self, self._created.inputs, batches, reading))

    @overload
    def predict(
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
    def predict(
        self,
        data: Data,
        outputs: Sequence[str] | None = None,
        *,
        batch_size: int = ...,
        progress: bool | None = ...,
        depth: int = ...,
        timeout: float | None = ...,
    ) -> dict[str, Array]: ...

    def predict(
        self,
        data: Data,
        outputs: str | Sequence[str] | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool | None = None,
        depth: int = DEPTH,
        timeout: float | None = None,
    ) -> dict[str, Array] | Array:
        """Returns outputs for all examples, in their order, in eval mode; changes nothing.

        Args:
            data: As in `fit`; only the inputs that the outputs depend on are needed, and an array alone is the first.
            outputs: The names of the outputs, None for all; one name alone returns its array instead of a mapping.
            batch_size: See `fit`.
            progress: See `fit`.
            depth: See `fit`.
            timeout: See `fit`.

        Example:
            >>> x = bw.input("x", ("batch",))
            >>> session = client.create_session(bw.graph(outputs={"y": bw.parameter("w", 2.0) * x}))
            >>> session.predict({"x": [1.0, 2.0, 6.0]}, "y", batch_size=2).tolist()
            [2.0, 4.0, 12.0]
        """
        self._check_open()
        names = [outputs] if isinstance(outputs, str) else list(outputs or self.outputs)
        batches = source(data, self._created.inputs, size=batch_size, shuffle=False, seed=0)
        reading = Reading(size=batch_size, depth=depth, progress=progress, timeout=timeout)
        found = drive(prediction(self, self._created.inputs, batches, reading, names))
        return found[outputs] if isinstance(outputs, str) else found

    def train_steps(
        self,
        batches: Iterable[Arrays],
        *,
        depth: int = DEPTH,
        outputs: Sequence[str] = (),
        learning_rate: float | None = None,
        non_finite: NonFinite = "reject",
        normalize: Normalize = "sum",
        weight: float | None = None,
        timeout: float | None = None,
    ) -> Iterator[TrainStepResult]:
        """Trains on each batch in turn and yields the results in order, with the next batches already on their way.

        The same as `train_step` for each batch, but the network is hidden, and a connection that breaks is replaced.
        Nothing is sent before the first result is asked for. After an error no later batch was applied; a loop that is
        left early has waited for those on their way, up to `depth - 1`, and they were applied. A RuntimeWarning tells
        that the session went back to an earlier step meanwhile.

        Args:
            batches: The inputs of each step.
            depth: How many batches are on their way at a time.
            outputs: See `train_step`.
            learning_rate: The same for all steps; None for the optimizer's.
            non_finite: See `step`.
            normalize: See `step`.
            weight: See `Forward.backward`.
            timeout: The most seconds to wait for a result; None for the client's timeout.

        Example:
            >>> x = bw.input("x", ("batch",))
            >>> loss = bw.squared_error(bw.parameter("w", 0.0) * x, 3 * x)
            >>> session = client.create_session(loss, optimizer=bw.SGD(0.25))
            >>> [result.loss for result in session.train_steps({"x": [1]} for _ in range(3))]
            [9.0, 2.25, 0.5625]
        """
        return train_steps(
            self.pipeline(depth=depth, timeout=timeout),
            batches,
            depth,
            outputs=outputs,
            learning_rate=learning_rate,
            non_finite=non_finite,
            normalize=normalize,
            weight=weight,
        )
