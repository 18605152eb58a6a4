"""Pipeline: requests of a session in flight, and a training loop that keeps them so."""

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from backwire._arrays import Array
from backwire._errors import BackwireError
from backwire._forward import Forward
from backwire._info import (
    CheckpointInfo,
    SessionInfo,
    StepResult,
    TrainStepResult,
)
from backwire._training._steps import Steps
from backwire._wire import _calls, _calls_state
from backwire._wire._call import Call, TensorCall
from backwire._wire._messages import Arrays, Mode, NonFinite, Normalize
from backwire._wire._pipeline_messages import Depends
from backwire._wire._pipeline_stream import PipelineFuture, PipelineStream

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
        ...     _ = pipe.backward(forward)
        ...     step = pipe.step()
        >>> forward.result().loss, step.result().gradient_norm
        (9.0, 6.0)
    """

    def __init__(self, session: "Session", stream: PipelineStream) -> None:
        """Speaks for a session, on a stream of its own."""
        self._session = session
        self._stream = stream

    def forward(
        self,
        inputs: Arrays,
        mode: Mode = "train",
        *,
        outputs: Sequence[str] | None = None,
        forward_id: str | None = None,
        data_parallel: int | None = None,
        request_id: str | None = None,
        depends: Depends = "implied",
    ) -> ForwardFuture:
        """Sends what `Session.forward` does; by default the name of the pass is drawn at random."""
        name = forward_id or (secrets.token_hex(8) if mode == "train" else "")
        call = _calls.forward(
            self._session,
            inputs,
            mode,
            outputs=outputs,
            forward_id=name,
            data_parallel=data_parallel,
            request_id=request_id,
            read=self._session._forward_result,
        )
        future = ForwardFuture(call.request_id, self._stream.timeout)
        future.forward_id = name
        self._stream.submit(*call.piped(depends), future)
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
        call = _calls.backward(
            self._session,
            forward.forward_id if isinstance(forward, ForwardFuture) else forward.id,
            _known_outputs(forward),
            output_gradients,
            wrt,
            retain=retain,
            weight=weight,
            request_id=request_id,
        )
        return self._submit(call, depends)

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
        call = _calls.step(
            self._session,
            learning_rate,
            expected_step=expected_step,
            non_finite=non_finite,
            normalize=normalize,
            after_contributions=after_contributions,
            digest=digest,
            request_id=request_id,
        )
        return self._submit(call, depends)

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
        depends: Depends = "implied",
    ) -> PipelineFuture[TrainStepResult]:
        """Sends what `Session.train_step` does."""
        call = _calls.train_step(
            self._session,
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
        return self._submit(call, depends)

    def zero_gradients(self, *, request_id: str | None = None, depends: Depends = "implied") -> PipelineFuture[int]:
        """Sends what `Session.zero_gradients` does, after which steps depend on no earlier failure."""
        return self._submit(_calls.zero_gradients(self._session, request_id), depends)

    def save_checkpoint(
        self, name: str, *, request_id: str | None = None, depends: Depends = "implied"
    ) -> PipelineFuture[CheckpointInfo]:
        """Sends what `Session.save_checkpoint` does; the checkpoint has the state after the requests so far."""
        return self._submit(_calls_state.save_checkpoint(self._session, name, request_id), depends)

    def info(self) -> PipelineFuture[SessionInfo]:
        """Asks where the session stands after the requests so far."""
        return self._submit(_calls_state.info(self._session), "implied")

    def drain(self) -> None:
        """Waits until every request so far was answered, with success or not."""
        self._stream.drain()

    def close(self) -> None:
        """Waits as `drain` does and ends the stream, without a look at errors. Closing again does nothing."""
        self._stream.close()
        self._stream.drain()

    def __repr__(self) -> str:
        return f"<Pipeline of session {self._session.id}>"

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

    def _submit(self, call: Call[T] | TensorCall[T], depends: Depends) -> PipelineFuture[T]:
        future = PipelineFuture[T](call.request_id, self._stream.timeout)
        self._stream.submit(*call.piped(depends), future)
        return future


def train_steps(
    pipeline: Pipeline, batches: Iterable[Arrays], depth: int, **settings: Any
) -> Iterator[TrainStepResult]:
    """Yields the result of a TrainStep for each batch, with up to `depth` in flight; see `Session.train_steps`."""
    waiting: deque[PipelineFuture[TrainStepResult]] = deque()
    steps = Steps()
    with pipeline:
        for batch in batches:
            waiting.append(pipeline.train_step(batch, depends="previous", **settings))
            if len(waiting) >= depth:
                yield steps.noted(waiting.popleft().result())
        while waiting:
            yield steps.noted(waiting.popleft().result())


def _known_outputs(forward: ForwardFuture | Forward) -> Mapping[str, Array]:
    if not isinstance(forward, ForwardFuture):
        return forward.outputs
    arrived = forward.done() and forward.exception() is None
    return forward.result().outputs if arrived else {}
