"""Session: the three verbs, awaited, and the state that the server keeps."""

from collections.abc import Mapping, Sequence

from backwire._arrays import Array
from backwire._builder._graph import Graph
from backwire._forward import forward_fields
from backwire._info import SessionInfo, StepResult, TrainStepResult
from backwire._inspection import GradientCheck
from backwire._session_description import SessionDescription
from backwire._wire import _calls
from backwire._wire._messages import Arrays, Mode, NonFinite, Normalize
from backwire._wire._pipeline_messages import UNLIMITED, Answer, checked_depth
from backwire.aio._forward import Forward
from backwire.aio._pipeline import Pipeline
from backwire.aio._pipeline_stream import PipelineStream
from backwire.aio._session_fit import FittedSession
from backwire.aio._tensor_calls import TensorCalls
from backwire.aio._transport import Transport


class Session(FittedSession):
    """A model in training on the server: graph, parameters, accumulated gradients and optimizer state.

    What `backwire.Session` is where one waits: the same names, arguments and errors, and all that asks the server is
    awaited. An asynchronous context manager, which deletes the session at its end. A call whose task is cancelled may
    or may not have been applied; a `fit` first notes what was on its way.
    """

    def __init__(self, transport: Transport, info: SessionInfo, graph: Graph | None = None) -> None:
        """Speaks for the session that `info` describes, and that trains `graph` if that is known here."""
        super().__init__(transport, info, graph)
        self._tensors = TensorCalls(self._transport, info.limits.max_message_bytes or UNLIMITED)

    async def forward(
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
        """Does what `backwire.Session.forward` does."""
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
        return await self._tensors.send(call, timeout)

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
        timeout: float | None = None,
    ) -> StepResult:
        """Does what `backwire.Session.step` does."""
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
        return await self._transport.send(call, timeout)

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
        timeout: float | None = None,
    ) -> TrainStepResult:
        """Does what `backwire.Session.train_step` does."""
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
        return await self._tensors.send(call, timeout)

    def pipeline(self, *, depth: int = 8, timeout: float | None = None) -> Pipeline:
        """Opens a pipeline, whose calls return futures; see `backwire.Session.pipeline`."""
        self._check_open()
        stream = PipelineStream(
            self._transport, self._tensors.limit, checked_depth(depth), self._transport.patience(timeout, "answer")
        )
        return Pipeline(self, stream)

    async def parameters(
        self, names: Sequence[str] | None = None, *, averaged: bool = False, timeout: float | None = None
    ) -> dict[str, Array]:
        """Does what `backwire.Session.parameters` does."""
        return await self._transport.receive(_calls.parameters(self, names, averaged=averaged), timeout)

    async def gradients(self, names: Sequence[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """Does what `backwire.Session.gradients` does."""
        return await self._transport.receive(_calls.gradients(self, names), timeout)

    async def check_gradients(
        self,
        inputs: Arrays,
        *,
        parameters: Sequence[str] | None = None,
        max_elements: int = 64,
        seed: int = 0,
        timeout: float | None = None,
    ) -> GradientCheck:
        """Does what `backwire.Session.check_gradients` does."""
        return await self._transport.send(_calls.check_gradients(self, inputs, parameters, max_elements, seed), timeout)

    async def describe(
        self,
        inputs: Arrays | None = None,
        *,
        shapes: Mapping[str, Sequence[int]] | None = None,
        passes: int = 0,
        timeout: float | None = None,
    ) -> SessionDescription:
        """Does what `backwire.Session.describe` does."""
        return await self._transport.send(_calls.describe(self, inputs, shapes, passes), timeout)

    async def set_parameters(
        self, values: Arrays, *, request_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Does what `backwire.Session.set_parameters` does."""
        await self._transport.put(_calls.set_parameters(self, values, request_id), timeout)

    async def zero_gradients(self, *, request_id: str | None = None, timeout: float | None = None) -> int:
        """Does what `backwire.Session.zero_gradients` does."""
        return await self._transport.send(_calls.zero_gradients(self, request_id), timeout)

    async def _backward(
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
        return await self._tensors.send(call, timeout)

    def _forward_result(self, answer: Answer) -> Forward:
        return Forward(session=self, **forward_fields(answer))
