"""Session: the three verbs, and the state that the server keeps."""

from collections.abc import Iterable, Iterator, Sequence

from backwire import _inspection, _messages
from backwire._arrays import Array
from backwire._errors import InvalidRequestError
from backwire._forward import Forward
from backwire._graph import Graph
from backwire._info import SessionInfo, StepResult, TrainStepResult, step_fields
from backwire._inspection import GradientCheck
from backwire._messages import Arrays, Mode, NonFinite, Normalize
from backwire._pipeline import Pipeline, fit, train_step_result
from backwire._pipeline_messages import UNLIMITED, Answer
from backwire._pipeline_stream import PipelineStream
from backwire._session_base import SessionBase
from backwire._tensor_calls import TensorCalls
from backwire._transport import Transport
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.wire import Framed


class Session(SessionBase):
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
        self._calls = TensorCalls(transport, info.limits.max_message_bytes or UNLIMITED)

    def forward(
        self,
        inputs: Arrays,
        mode: Mode = "train",
        *,
        outputs: Sequence[str] | None = None,
        forward_id: str | None = None,
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
            request_id: See the class.
            timeout: See the class.

        Example:
            >>> x = bw.input("x", ("batch", 2))
            >>> w = bw.parameter("w", [1.0, 2.0])
            >>> session = client.create_session(bw.mean(x @ w))
            >>> session.forward({"x": [[1, 1], [2, 2]]}).loss
            4.5
        """
        self._check_open()
        unique = _messages.new_request_id(request_id) if mode == "train" else None
        request = _messages.forward(
            self._created,
            inputs,
            mode=mode,
            outputs=outputs,
            forward_id=forward_id,
            request_id=unique or "",
            lease=self._lease,
        )
        return self._forward_result(self._calls.send("forward", request, timeout, unique))

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
        self._check_open()
        options = _messages.step_options(
            learning_rate=learning_rate,
            expected_step=expected_step,
            non_finite=non_finite,
            normalize=normalize,
            after_contributions=after_contributions,
            digest=digest,
        )
        unique = _messages.new_request_id(request_id)
        request = service_pb2.StepRequest(session_id=self.id, options=options, request_id=unique, lease=self._lease)
        rpc = self._transport.stub.Step
        response = self._transport.unary(rpc, request, timeout=timeout, request_id=unique)
        return StepResult(**step_fields(response.result))

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
        digest: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> TrainStepResult:
        """Does forward, backward of the loss and step in one round trip: all three happen, or none.

        Arguments are those of `forward`, `Forward.backward` and `step`, but `outputs` is by default none.

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
        self._check_open()
        unique = _messages.new_request_id(request_id)
        options = _messages.step_options(
            learning_rate=learning_rate,
            expected_step=expected_step,
            non_finite=non_finite,
            normalize=normalize,
            digest=digest,
        )
        request = _messages.train_step(
            self._created,
            inputs,
            options=options,
            outputs=outputs,
            weight=weight,
            request_id=unique,
            lease=self._lease,
        )
        return train_step_result(self._calls.send("train_step", request, timeout, unique))

    def pipeline(self, *, depth: int = 8, timeout: float | None = None) -> Pipeline:
        """Opens a pipeline, whose calls return futures at once; see `Pipeline`.

        Args:
            depth: The most requests in flight; the next call waits for an answer.
            timeout: The most seconds to wait for an answer; None for the client's timeout.
        """
        self._check_open()
        if depth < 1:
            raise InvalidRequestError(f"depth={depth} lets nothing be sent; use 1 or more", field="depth")
        stream = PipelineStream(self._transport, self._calls.limit, depth, self._transport.patience(timeout))
        return Pipeline(self, self._created, stream)

    def fit(
        self,
        batches: Iterable[Arrays],
        *,
        depth: int = 2,
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
        left early has waited for those on their way, up to `depth - 1`, and they were applied.

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
            >>> [result.loss for result in session.fit({"x": [1]} for _ in range(3))]
            [9.0, 2.25, 0.5625]
        """
        return fit(
            self.pipeline(depth=depth, timeout=timeout),
            batches,
            depth,
            outputs=outputs,
            learning_rate=learning_rate,
            non_finite=non_finite,
            normalize=normalize,
            weight=weight,
        )

    def parameters(
        self, names: Sequence[str] | None = None, *, averaged: bool = False, timeout: float | None = None
    ) -> dict[str, Array]:
        """Returns parameters by name, all of one and the same step, as writable copies.

        Args:
            names: The parameters to return, in this order; None for all, in the graph's order.
            averaged: True returns the exponential moving average of each trainable parameter in place of its value.
                Before the first step that is its value; frozen parameters always have theirs.
            timeout: See the class.

        Raises:
            InvalidRequestError: `averaged`, but the session's optimizer has no `average_decay`.

        Example:
            >>> w = bw.parameter("w", 8.0)
            >>> session = client.create_session(w * 2, optimizer=bw.SGD(1.0, average_decay=0.75))
            >>> for _ in range(2):
            ...     _ = session.train_step({})
            >>> float(session.parameters()["w"]), float(session.parameters(averaged=True)["w"])
            (4.0, 5.5)
        """
        self._check_open()
        listed, expected = _messages.selected_parameters(self._created, names, trainable=False)
        request = service_pb2.GetParametersRequest(session_id=self.id, names=listed, averaged=averaged)

        def decode(responses: Iterable[Framed[service_pb2.GetParametersResponse]]) -> dict[str, Array]:
            return _messages.decode_chunks(responses, expected)

        return self._transport.download(self._transport.stub.GetParameters, request, decode, timeout=timeout)

    def gradients(self, names: Sequence[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """Returns the gradients accumulated since the last step by parameter name, as writable copies.

        Zeros where nothing was accumulated; frozen parameters have none.
        """
        self._check_open()
        listed, expected = _messages.selected_parameters(self._created, names, trainable=True)
        request = service_pb2.GetGradientsRequest(session_id=self.id, names=listed)

        def decode(responses: Iterable[Framed[service_pb2.GetGradientsResponse]]) -> dict[str, Array]:
            return _messages.decode_chunks(responses, expected)

        return self._transport.download(self._transport.stub.GetGradients, request, decode, timeout=timeout)

    def check_gradients(
        self,
        inputs: Arrays,
        *,
        parameters: Sequence[str] | None = None,
        max_elements: int = 64,
        seed: int = 0,
        timeout: float | None = None,
    ) -> GradientCheck:
        """Compares the gradient of the loss with finite differences, at the parameters as they are; changes nothing.

        The loss is computed twice for each element that is checked, while other calls on the session wait.

        Args:
            inputs: As in `forward`.
            parameters: The trainable parameters to check; None for all.
            max_elements: The most elements to check of each, drawn from `seed` where there are more.
            seed: What elements are drawn from.
            timeout: See the class.

        Example:
            >>> w = bw.parameter("w", [1.0, 2.0])
            >>> session = client.create_session(bw.sum(bw.exp(w)))
            >>> session.check_gradients({}).worst_error < 1e-6
            True
        """
        self._check_open()
        request = _inspection.check_request(self._created, inputs, parameters, max_elements, seed)
        rpc = self._transport.stub.CheckGradients
        return _inspection.gradient_check(self._transport.unary(rpc, request, timeout=timeout))

    def set_parameters(self, values: Arrays, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Replaces some or all parameters, frozen ones too, all or nothing; arrays are converted as inputs are.

        Optimizer state, moving averages, step number and accumulated gradients stay.
        """
        self._check_open()
        arrays = _messages.checked_parameters(self._created, values)
        unique, lease = _messages.new_request_id(request_id), self._lease

        def requests() -> Iterator[Framed[service_pb2.SetParametersRequest]]:
            return _messages.set_parameters(self._created, arrays, unique, lease)

        self._transport.upload(self._transport.stub.SetParameters, requests, timeout=timeout, request_id=unique)

    def zero_gradients(self, *, request_id: str | None = None, timeout: float | None = None) -> int:
        """Discards the accumulated gradients and returns how many contributions they were."""
        self._check_open()
        unique = _messages.new_request_id(request_id)
        request = service_pb2.ZeroGradientsRequest(session_id=self.id, request_id=unique, lease=self._lease)
        rpc = self._transport.stub.ZeroGradients
        return self._transport.unary(rpc, request, timeout=timeout, request_id=unique).contributions

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
        self._check_open()
        unique = _messages.new_request_id(request_id)
        request = _messages.backward(
            self._created,
            forward.id,
            forward.outputs,
            output_gradients=output_gradients,
            wrt=wrt,
            retain=retain,
            weight=weight,
            request_id=unique,
            lease=self._lease,
        )
        return self._calls.send("backward", request, timeout, unique).arrays

    def _forward_result(self, answer: Answer) -> Forward:
        message = answer.message
        loss = message.loss if message.HasField("loss") else None
        return Forward(self, message.forward_id, answer.arrays, loss, message.step)
