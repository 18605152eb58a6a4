"""Session: the three verbs, and the state that the server keeps."""

from collections.abc import Sequence

from backwire._arrays import Array
from backwire._builder._graph import Graph
from backwire._forward import Forward, forward_fields
from backwire._info import SessionInfo, StepResult, TrainStepResult
from backwire._pipeline import Pipeline
from backwire._session_fit import FittedSession
from backwire._wire import _calls
from backwire._wire._messages import Arrays, Mode, NonFinite, Normalize
from backwire._wire._pipeline_messages import UNLIMITED, Answer, checked_depth
from backwire._wire._pipeline_stream import PipelineStream
from backwire._wire._tensor_calls import TensorCalls
from backwire._wire._transport import Transport


class Session(FittedSession):
    """A model in training on the server: graph, parameters, accumulated gradients and optimizer state.

    Made by `Client.create_session`, `Client.session`, `Client.import_session` and `Session.fork`. A context manager,
    which deletes the session at its end. May be used by several threads at once.

    Every method takes `timeout`, the seconds until the call fails with DeadlineExceededError (None for the client's).
    Every mutation takes `request_id`: give the one of a call that failed to repeat it safely; by default it is drawn at
    random. An empty text gives up that protection, and then the call is not retried when the connection breaks.
    """

    def __init__(self, transport: Transport, info: SessionInfo, graph: Graph | None = None) -> None:
        """Speaks for the session that `info` describes, and that trains `graph` if that is known here."""
        super().__init__(transport, info, graph)
        self._tensors = TensorCalls(self._transport, info.limits.max_message_bytes or UNLIMITED)

    def forward(
        self,
        inputs: Arrays,
        mode: Mode = "train",
        *,
        outputs: Sequence[str] | None = None,
        forward_id: str | None = None,
        data_parallel: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Forward:
        """Computes outputs and loss.

        Args:
            inputs: An array, list or number for every input; converted to the declared dtype where that is safe
                (float64 to float32 and integers to floats are, floats to integers are not).
            mode: `"train"` keeps what Backward needs, and Dropout drops; `"eval"` changes nothing.
            outputs: The names of the outputs to return; None for all. In eval mode only the inputs that these depend on
                are needed.
            forward_id: A name for the pass; by default the server chooses one.
            data_parallel: In how many parts this batch is computed, and its Backward; by default in as many as the
                session says. Has no effect in eval mode.
            request_id: See the class.
            timeout: See the class.

        Example:
            >>> x = bw.input("x", ("batch", 2))
            >>> w = bw.parameter("w", [1.0, 2.0])
            >>> session = client.create_session(bw.mean(x @ w))
            >>> session.forward({"x": [[1, 1], [2, 2]]}).loss
            4.5
        """
        call = _calls.forward(
            self,
            inputs,
            mode,
            outputs=outputs,
            forward_id=forward_id,
            data_parallel=data_parallel,
            request_id=request_id,
            read=self._forward_result,
        )
        return self._tensors.send(call, timeout)

    def step(
        self,
        learning_rate: float | None = None,
        *,
        expected_step: int | None = None,
        non_finite: NonFinite = "reject",
        normalize: Normalize = "sum",
        after_contributions: int = 0,
        digest: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> StepResult:
        """Applies the accumulated gradients with the session's optimizer and clears them; all or nothing.

        Args:
            learning_rate: The learning rate for this step alone; None for the optimizer's.
            expected_step: The step number that the session must be at; StepMismatchError when it is not.
            non_finite: What to do about NaN and infinity: `"reject"` raises NonFiniteGradientError, `"skip"` discards
                the gradients, `"allow"` applies them.
            normalize: `"sum"` adds contributions; `"mean"` divides their sum by the sum of their weights.
            after_contributions: How many backward passes, of whatever client, must have been accumulated: the call
                waits for them as long as `timeout` allows. So several workers train one model in step: each runs
                forward and backward, and one of them steps after as many contributions as there are workers.
            digest: True asks for the digest of the state after the step; see `digest`.
            request_id: See the class.
            timeout: See the class.

        Raises:
            NoGradientsError: Nothing was accumulated since the last step.
            WriterFencedError: Another client has the writer lease; see `attach`. So do all other mutations.
        """
        call = _calls.step(
            self,
            learning_rate,
            expected_step=expected_step,
            non_finite=non_finite,
            normalize=normalize,
            after_contributions=after_contributions,
            digest=digest,
            request_id=request_id,
        )
        return self._transport.send(call, timeout)

    def train_step(
        self,
        inputs: Arrays,
        *,
        outputs: Sequence[str] = (),
        learning_rate: float | None = None,
        expected_step: int | None = None,
        non_finite: NonFinite = "reject",
        normalize: Normalize = "sum",
        weight: float | None = None,
        data_parallel: int | None = None,
        digest: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> TrainStepResult:
        """Does forward, backward of the loss and step in one round trip: all three happen, or none.

        Arguments are those of `forward`, `Forward.backward` and `step`, but `outputs` is by default none, and
        `data_parallel` is as in `Client.create_session`, for this step alone.

        Example:
            >>> x = bw.input("x", ("batch",))
            >>> loss = bw.squared_error(bw.parameter("w", 0.0) * x, 3 * x)
            >>> session = client.create_session(loss, optimizer=bw.SGD(0.25))
            >>> for batch in ([1], [1], [1]):
            ...     result = session.train_step({"x": batch})
            ...     print(result.step, result.loss, result.gradient_norm)
            1 9.0 6.0
            2 2.25 3.0
            3 0.5625 1.5
        """
        call = _calls.train_step(
            self,
            inputs,
            outputs=outputs,
            learning_rate=learning_rate,
            expected_step=expected_step,
            non_finite=non_finite,
            normalize=normalize,
            weight=weight,
            data_parallel=data_parallel,
            digest=digest,
            request_id=request_id,
        )
        return self._tensors.send(call, timeout)

    def pipeline(self, *, depth: int = 8, timeout: float | None = None) -> Pipeline:
        """Opens a pipeline, whose calls return futures at once; see `Pipeline`.

        Args:
            depth: The most requests in flight; the next call waits for an answer.
            timeout: The most seconds to wait for an answer; None for the client's timeout.
        """
        self._check_open()
        stream = PipelineStream(
            self._transport, self._tensors.limit, checked_depth(depth), self._transport.patience(timeout, "answer")
        )
        return Pipeline(self, stream)

    def _backward(
        self,
        forward: Forward,
        output_gradients: Arrays | None,
        wrt: Sequence[str],
        *,
        retain: bool,
        weight: float | None,
        request_id: str | None,
        timeout: float | None,
    ) -> dict[str, Array]:
        call = _calls.backward(
            self,
            forward.id,
            forward.outputs,
            output_gradients,
            wrt,
            retain=retain,
            weight=weight,
            request_id=request_id,
        )
        return self._tensors.send(call, timeout)

    def _forward_result(self, answer: Answer) -> Forward:
        return Forward(session=self, **forward_fields(answer))
