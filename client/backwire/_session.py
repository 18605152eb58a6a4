"""Session and Forward: the three verbs, and the state that the server keeps."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from backwire import _inspection, _messages
from backwire._arrays import Array
from backwire._errors import BackwireError, SessionNotFoundError
from backwire._graph import Graph
from backwire._info import SessionInfo, StepResult, TrainStepResult, session_info, step_fields
from backwire._inspection import GradientCheck
from backwire._messages import Arrays, Mode, NonFinite, Normalize
from backwire._transport import Transport
from backwire_api.v1 import gradient_service_pb2 as service_pb2


class Session:
    """A model in training on the server: graph, parameters, accumulated gradients and optimizer state.

    Made by `Client.create_session` and `Client.session`. A context manager, which deletes the session at its end. May
    be used by several threads at once.

    Every method takes `timeout`, the seconds until the call fails with DeadlineExceededError (None for the client's).
    Every mutation takes `request_id`: give the one of a call that failed to repeat it safely; by default it is drawn at
    random. An empty text gives up that protection, and then the call is not retried when the connection breaks.
    """

    def __init__(self, transport: Transport, info: SessionInfo, graph: Graph | None = None) -> None:
        """Speaks for the session that `info` describes, and that trains `graph` if that is known here."""
        self._transport = transport
        self._created = info
        self._graph = graph
        self._closed = False

    @property
    def id(self) -> str:
        """The id, by which other clients can attach with `Client.session`."""
        return self._created.id

    @property
    def graph(self) -> Graph | None:
        """The graph that it was created from, or None in a client that attached to it by its id."""
        return self._graph

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs, sorted."""
        return self._created.outputs

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Asks the server where the session stands."""
        self._check_open()
        request = service_pb2.GetSessionRequest(session_id=self.id)
        return session_info(self._transport.unary(self._transport.stub.GetSession, request, timeout=timeout).session)

    def forward(
        self,
        inputs: Arrays,
        mode: Mode = "train",
        *,
        outputs: Sequence[str] | None = None,
        forward_id: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> "Forward":
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
            self._created, inputs, mode=mode, outputs=outputs, forward_id=forward_id, request_id=unique or ""
        )
        rpc = self._transport.stub.Forward
        response = self._transport.unary(rpc, request, timeout=timeout, request_id=unique)
        loss = response.loss if response.HasField("loss") else None
        return Forward(self, response.forward_id, _messages.decode(response.outputs), loss, response.step)

    def step(
        self,
        learning_rate: float | None = None,
        *,
        expected_step: int | None = None,
        non_finite: NonFinite = "reject",
        normalize: Normalize = "sum",
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
            request_id: See the class.
            timeout: See the class.

        Raises:
            NoGradientsError: Nothing was accumulated since the last step.
        """
        self._check_open()
        options = _messages.step_options(
            learning_rate=learning_rate, expected_step=expected_step, non_finite=non_finite, normalize=normalize
        )
        unique = _messages.new_request_id(request_id)
        request = service_pb2.StepRequest(session_id=self.id, options=options, request_id=unique)
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
            learning_rate=learning_rate, expected_step=expected_step, non_finite=non_finite, normalize=normalize
        )
        request = _messages.train_step(
            self._created, inputs, options=options, outputs=outputs, weight=weight, request_id=unique
        )
        rpc = self._transport.stub.TrainStep
        return _messages.train_step_result(self._transport.unary(rpc, request, timeout=timeout, request_id=unique))

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

        def decode(responses: Iterable[service_pb2.GetParametersResponse]) -> dict[str, Array]:
            return _messages.decode_chunks((response.chunk for response in responses), expected)

        return self._transport.download(self._transport.stub.GetParameters, request, decode, timeout=timeout)

    def gradients(self, names: Sequence[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """Returns the gradients accumulated since the last step by parameter name, as writable copies.

        Zeros where nothing was accumulated; frozen parameters have none.
        """
        self._check_open()
        listed, expected = _messages.selected_parameters(self._created, names, trainable=True)
        request = service_pb2.GetGradientsRequest(session_id=self.id, names=listed)

        def decode(responses: Iterable[service_pb2.GetGradientsResponse]) -> dict[str, Array]:
            return _messages.decode_chunks((response.chunk for response in responses), expected)

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
        unique = _messages.new_request_id(request_id)

        def requests() -> Iterator[service_pb2.SetParametersRequest]:
            return _messages.set_parameters(self._created, arrays, unique)

        self._transport.upload(self._transport.stub.SetParameters, requests, timeout=timeout, request_id=unique)

    def zero_gradients(self, *, request_id: str | None = None, timeout: float | None = None) -> int:
        """Discards the accumulated gradients and returns how many contributions they were."""
        self._check_open()
        unique = _messages.new_request_id(request_id)
        request = service_pb2.ZeroGradientsRequest(session_id=self.id, request_id=unique)
        rpc = self._transport.stub.ZeroGradients
        return self._transport.unary(rpc, request, timeout=timeout, request_id=unique).contributions

    def close(self, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Deletes the session on the server, with all that it holds; does nothing when it is gone already."""
        if self._closed:
            return
        unique = _messages.new_request_id(request_id)
        request = service_pb2.DeleteSessionRequest(session_id=self.id, request_id=unique)
        with contextlib.suppress(SessionNotFoundError):
            self._transport.unary(self._transport.stub.DeleteSession, request, timeout=timeout, request_id=unique)
        self._closed = True

    def _backward(
        self,
        forward: "Forward",
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
        )
        rpc = self._transport.stub.Backward
        response = self._transport.unary(rpc, request, timeout=timeout, request_id=unique)
        return _messages.decode(response.input_gradients)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BackwireError:
            if error is None:
                raise

    def __repr__(self) -> str:
        return f"<Session {self.id}{' (closed)' if self._closed else ''}>"

    def _check_open(self) -> None:
        if self._closed:
            raise SessionNotFoundError(f"session {self.id} was closed here; create another one")


@dataclass(frozen=True, slots=True, repr=False)
class Forward:
    """What a forward pass computed, and in train mode the way back through it.

    Attributes:
        session: The session that it belongs to.
        id: The name of the pass; empty in eval mode.
        outputs: The outputs by name, as read-only arrays that share the response's memory; `.copy()` one to change it.
        loss: The loss, or None when it was not computed.
        step: The number of the step whose parameters were used.
    """

    session: Session
    id: str
    outputs: dict[str, Array]
    loss: float | None
    step: int

    def backward(
        self,
        output_gradients: Arrays | None = None,
        wrt: Sequence[str] = (),
        *,
        retain: bool = False,
        weight: float | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Adds the gradients of the parameters to the session's, and returns those of the inputs in `wrt`.

        Args:
            output_gradients: The gradient of whatever is minimised with respect to outputs, by output name; None for
                that of the graph's loss, which is 1. Only the outputs named take part; the loss goes by `"loss"`.
            wrt: The names of inputs whose gradients to return, as read-only arrays.
            retain: True keeps the pass for another backward.
            weight: What this contribution counts, above 0; with the number of examples here and `normalize="mean"` in
                `step`, micro-batches of mean losses add up to the gradient of the whole batch.
            request_id: See `Session`.
            timeout: See `Session`.

        Raises:
            PassExpiredError: An earlier backward used the pass up, or it was dropped for its age or for newer ones.
            PassNotFoundError: The pass is so long gone that the server forgot it.

        Example:
            >>> x = bw.input("x", (2,))
            >>> session = client.create_session(bw.graph(outputs={"y": x * x}))
            >>> forward = session.forward({"x": [1, 2]})
            >>> forward.backward({"y": [10, 100]}, wrt=["x"])["x"].tolist()
            [20.0, 400.0]
        """
        return self.session._backward(
            self, output_gradients, wrt, retain=retain, weight=weight, request_id=request_id, timeout=timeout
        )

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}{list(value.shape)}" for name, value in self.outputs.items())
        return f"<Forward {self.id or '(eval)'} of step {self.step}: loss {self.loss}, outputs {shapes or 'none'}>"
