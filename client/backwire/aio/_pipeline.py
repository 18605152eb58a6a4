"""Pipeline: requests of a session in flight, whose futures are awaited."""

import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from backwire._arrays import Array
from backwire._errors import BackwireError
from backwire._info import CheckpointInfo, SessionInfo, StepResult, TrainStepResult
from backwire._wire import _calls, _calls_state
from backwire._wire._call import Call, TensorCall
from backwire._wire._messages import Arrays, Mode, NonFinite, Normalize
from backwire._wire._pipeline_messages import Depends
from backwire.aio._forward import Forward
from backwire.aio._pipeline_stream import PipelineFuture, PipelineStream

if TYPE_CHECKING:
    from backwire.aio._session import Session

T = TypeVar("T")


class ForwardFuture(PipelineFuture[Forward]):
    """The result of a Forward in flight.

    Attributes:
        forward_id: The name of the pass, which its Backward can use at once; empty in eval mode.
    """

    forward_id: str = ""


class Pipeline:
    """Requests of one session on one stream, many in flight; see `backwire.Pipeline`.

    Made by `Session.pipeline`; an asynchronous context manager. Awaiting a method sends the request, as soon as fewer
    than `depth` are in flight, and returns a future, which is awaited for the result.

    Example:
        >>> async def train(client):
        ...     session = await client.create_session(bw.mean(bw.parameter("w", 8.0)), bw.SGD(1.0))
        ...     async with session.pipeline() as pipe:
        ...         forward = await pipe.forward({})
        ...         await pipe.backward(forward)
        ...         step = await pipe.step()
        ...     return (await forward).loss, (await step).gradient_norm
        >>> run(train)
        (8.0, 1.0)
    """

    def __init__(self, session: "Session", stream: PipelineStream) -> None:
        """Speaks for a session, on a stream of its own."""
        self._session = session
        self._stream = stream

    async def forward(
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
        await self._stream.submit(*call.piped(depends), future)
        return future

    async def backward(
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
            await _known_outputs(forward),
            output_gradients,
            wrt,
            retain=retain,
            weight=weight,
            request_id=request_id,
        )
        return await self._submit(call, depends)

    async def step(
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
        return await self._submit(call, depends)

    async def train_step(
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
        return await self._submit(call, depends)

    async def zero_gradients(
        self, *, request_id: str | None = None, depends: Depends = "implied"
    ) -> PipelineFuture[int]:
        """Sends what `Session.zero_gradients` does, after which steps depend on no earlier failure."""
        return await self._submit(_calls.zero_gradients(self._session, request_id), depends)

    async def save_checkpoint(
        self, name: str, *, request_id: str | None = None, depends: Depends = "implied"
    ) -> PipelineFuture[CheckpointInfo]:
        """Sends what `Session.save_checkpoint` does; the checkpoint has the state after the requests so far."""
        return await self._submit(_calls_state.save_checkpoint(self._session, name, request_id), depends)

    async def info(self) -> PipelineFuture[SessionInfo]:
        """Asks where the session stands after the requests so far."""
        return await self._submit(_calls_state.info(self._session), "implied")

    async def drain(self) -> None:
        """Awaits that every request so far was answered, with success or not."""
        await self._stream.drain()

    async def close(self) -> None:
        """Awaits as `drain` does and ends the stream, without a look at errors. Closing again does nothing."""
        self._stream.close()
        await self._stream.drain()

    def __repr__(self) -> str:
        return f"<Pipeline of session {self._session.id}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except BackwireError:
            if error is None:
                raise
        if error is None:
            await self._stream.raise_unseen()

    async def _submit(self, call: Call[T] | TensorCall[T], depends: Depends) -> PipelineFuture[T]:
        future = PipelineFuture[T](call.request_id, self._stream.timeout)
        await self._stream.submit(*call.piped(depends), future)
        return future


async def _known_outputs(forward: ForwardFuture | Forward) -> Mapping[str, Array]:
    if not isinstance(forward, ForwardFuture):
        return forward.outputs
    arrived = forward.done() and await forward.exception() is None
    return (await forward).outputs if arrived else {}
