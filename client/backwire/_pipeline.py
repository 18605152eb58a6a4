"""Pipeline: requests of a session in flight, and a training loop that keeps them so."""

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from backwire import _messages
from backwire._arrays import Array
from backwire._errors import BackwireError
from backwire._forward import Forward
from backwire._info import (
    CheckpointInfo,
    SessionInfo,
    StepResult,
    TrainStepResult,
    checkpoint_info,
    session_info,
    step_fields,
)
from backwire._messages import Arrays, Mode, NonFinite, Normalize
from backwire._pipeline_messages import Answer, Depends, Request
from backwire._pipeline_stream import PipelineFuture, PipelineStream
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.wire import Framed

if TYPE_CHECKING:
    from backwire._session import Session

T = TypeVar("T")


class ForwardFuture(PipelineFuture[Forward]):
    """The result of a Forward in flight.

    Attributes:
        forward_id: The name of the pass, which its Backward can use at once; empty in eval mode.
    """

    forward_id: str = ""


class Pipeline:
    """Requests of one session on one stream, many in flight, so that the network's latency is hidden.

    Made by `Session.pipeline`; a context manager, which at its end waits until every request was answered, and raises
    the first error that nobody asked a future for. Requests are done in the order in which they were made, and each
    method returns a future at once, or waits while `depth` requests are in flight. May be used by several threads.

    A request that fails changes nothing and stops those that depend on it, which raise DependencyFailedError: the
    backward of a failed forward; and after a failed forward, backward or step, every step and train_step until a
    zero_gradients, since what is accumulated is not what was meant. All others go on. `depends` says otherwise:
    `"previous"` adds the request before, whatever it is, and `"nothing"` goes on in spite of earlier failures, which
    are then forgotten. A connection that breaks is replaced, and unanswered requests are repeated under their
    request_ids, so that each is applied once.

    Example:
        >>> x = bw.input("x", ("batch",))
        >>> loss = bw.squared_error(bw.parameter("w", 0.0) * x, 3 * x)
        >>> session = client.create_session(loss, optimizer=bw.SGD(0.25))
        >>> with session.pipeline() as pipe:
        ...     forward = pipe.forward({"x": [1]})
        ...     pipe.backward(forward)
        ...     step = pipe.step()
        >>> forward.result().loss, step.result().gradient_norm
        (9.0, 6.0)
    """

    def __init__(self, session: "Session", info: SessionInfo, stream: PipelineStream) -> None:
        """Speaks for the session that `info` describes, on a stream of its own."""
        self._session = session
        self._info = info
        self._stream = stream

    def forward(
        self,
        inputs: Arrays,
        mode: Mode = "train",
        *,
        outputs: Sequence[str] | None = None,
        forward_id: str | None = None,
        request_id: str | None = None,
        depends: Depends = "implied",
    ) -> ForwardFuture:
        """Sends what `Session.forward` does; by default the name of the pass is drawn at random."""
        train = mode == "train"
        name = forward_id or (secrets.token_hex(8) if train else "")
        unique = _messages.new_request_id(request_id) if train else None
        message = _messages.forward(
            self._info,
            inputs,
            mode=mode,
            outputs=outputs,
            forward_id=name,
            request_id=unique or "",
            lease=self._session._lease,
        )
        future = ForwardFuture(unique, self._stream.timeout)
        future.forward_id = name
        self._stream.submit(Request("forward", message, depends, unique), self._forward_result, future)
        return future

    def backward(
        self,
        forward: ForwardFuture | Forward,
        output_gradients: Arrays | None = None,
        wrt: Sequence[str] = (),
        *,
        retain: bool = False,
        weight: float | None = None,
        request_id: str | None = None,
        depends: Depends = "implied",
    ) -> PipelineFuture[dict[str, Array]]:
        """Sends what `Forward.backward` does; the forward may still be in flight."""
        unique = _messages.new_request_id(request_id)
        message = _messages.backward(
            self._info,
            forward.forward_id if isinstance(forward, ForwardFuture) else forward.id,
            _known_outputs(forward),
            output_gradients=output_gradients,
            wrt=wrt,
            retain=retain,
            weight=weight,
            request_id=unique,
            lease=self._session._lease,
        )
        return self._submit("backward", message, depends, unique, lambda answer: dict(answer.arrays))

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
        depends: Depends = "implied",
    ) -> PipelineFuture[StepResult]:
        """Sends what `Session.step` does."""
        unique = _messages.new_request_id(request_id)
        options = _messages.step_options(
            learning_rate=learning_rate,
            expected_step=expected_step,
            non_finite=non_finite,
            normalize=normalize,
            after_contributions=after_contributions,
            digest=digest,
        )
        message = service_pb2.StepRequest(
            session_id=self._info.id, options=options, request_id=unique, lease=self._session._lease
        )
        return self._submit("step", Framed(message), depends, unique, _step_result)

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
        depends: Depends = "implied",
    ) -> PipelineFuture[TrainStepResult]:
        """Sends what `Session.train_step` does."""
        unique = _messages.new_request_id(request_id)
        options = _messages.step_options(
            learning_rate=learning_rate,
            expected_step=expected_step,
            non_finite=non_finite,
            normalize=normalize,
            digest=digest,
        )
        message = _messages.train_step(
            self._info,
            inputs,
            options=options,
            outputs=outputs,
            weight=weight,
            request_id=unique,
            lease=self._session._lease,
        )
        return self._submit("train_step", message, depends, unique, train_step_result)

    def zero_gradients(self, *, request_id: str | None = None, depends: Depends = "implied") -> PipelineFuture[int]:
        """Sends what `Session.zero_gradients` does, after which steps depend on no earlier failure."""
        unique = _messages.new_request_id(request_id)
        message = service_pb2.ZeroGradientsRequest(
            session_id=self._info.id, request_id=unique, lease=self._session._lease
        )
        return self._submit(
            "zero_gradients", Framed(message), depends, unique, lambda answer: int(answer.message.contributions)
        )

    def save_checkpoint(
        self, name: str, *, request_id: str | None = None, depends: Depends = "implied"
    ) -> PipelineFuture[CheckpointInfo]:
        """Sends what `Session.save_checkpoint` does; the checkpoint has the state after the requests so far."""
        unique = _messages.new_request_id(request_id)
        message = Framed(service_pb2.SaveCheckpointRequest(session_id=self._info.id, name=name, request_id=unique))
        return self._submit(
            "save_checkpoint", message, depends, unique, lambda answer: checkpoint_info(answer.message.checkpoint)
        )

    def info(self) -> PipelineFuture[SessionInfo]:
        """Asks where the session stands after the requests so far."""
        message = Framed(service_pb2.GetSessionRequest(session_id=self._info.id))
        return self._submit(
            "get_session", message, "implied", None, lambda answer: session_info(answer.message.session)
        )

    def drain(self) -> None:
        """Waits until every request so far was answered, with success or not."""
        self._stream.drain()

    def close(self) -> None:
        """Waits as `drain` does and ends the stream, without a look at errors. Closing again does nothing."""
        self._stream.close()
        self._stream.drain()

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
        if error is None:
            self._stream.raise_unseen()

    def _submit(
        self, kind: str, framed: Framed[Any], depends: Depends, request_id: str | None, decode: Callable[[Answer], T]
    ) -> PipelineFuture[T]:
        future = PipelineFuture[T](request_id, self._stream.timeout)
        self._stream.submit(Request(kind, framed, depends, request_id), decode, future)
        return future

    def _forward_result(self, answer: Answer) -> Forward:
        return self._session._forward_result(answer)


def fit(pipeline: Pipeline, batches: Iterable[Arrays], depth: int, **settings: Any) -> Iterator[TrainStepResult]:
    """Yields the result of a TrainStep for each batch, with up to `depth` in flight; see `Session.fit`."""
    waiting: deque[PipelineFuture[TrainStepResult]] = deque()
    with pipeline:
        for batch in batches:
            waiting.append(pipeline.train_step(batch, depends="previous", **settings))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _known_outputs(forward: ForwardFuture | Forward) -> Mapping[str, Array]:
    if not isinstance(forward, ForwardFuture):
        return forward.outputs
    arrived = forward.done() and forward.exception() is None
    return forward.result().outputs if arrived else {}


def _step_result(answer: Answer) -> StepResult:
    return StepResult(**step_fields(answer.message.result))


def train_step_result(answer: Answer) -> TrainStepResult:
    """Returns the answer to a TrainStep as data."""
    message = answer.message
    return TrainStepResult(**step_fields(message.result), loss=message.loss, outputs=dict(answer.arrays))
