"""Calls with tensors: in one message each way where they fit, else in chunks on a stream; the caller cannot tell."""

from contextlib import aclosing
from typing import TypeVar

from backwire._errors_service import ServerError, TooLargeError
from backwire._wire import _messages
from backwire._wire._call import TensorCall
from backwire._wire._failures import from_status
from backwire._wire._pipeline_messages import Answer, AnswerReader, Request, fits
from backwire.aio._transport import Transport
from backwire_api.reasons import Reason

T = TypeVar("T")


class TensorCalls:
    """Forward, Backward and TrainStep of one session.

    Attributes:
        limit: The most bytes that a message may have.
    """

    def __init__(self, transport: Transport, limit: int) -> None:
        self.limit = limit
        self._transport = transport
        self._streamed: set[str] = set()
        stub = transport.stub
        self._rpcs = {"forward": stub.Forward, "backward": stub.Backward, "train_step": stub.TrainStep}

    async def send(self, call: TensorCall[T], timeout: float | None) -> T:
        """Returns the outcome of a call."""
        if call.kind not in self._streamed and fits(call.request.tensors, self.limit):
            rpc = self._rpcs[call.kind]
            try:
                response = await self._transport.unary(rpc, call.request, timeout=timeout, request_id=call.request_id)
                return call.read(Answer(response.message, _messages.decode(response.tensors)))
            except TooLargeError as error:
                if error.reason != Reason.MESSAGE_TOO_LARGE:
                    raise
                self._streamed.add(call.kind)  # nothing was changed, and the next answers will hardly be smaller
        return call.read(await self._exchange(call.piped("implied")[0], timeout))

    async def _exchange(self, request: Request, timeout: float | None) -> Answer:
        """Returns the answer to a request on a stream of its own."""

        async def attempt(seconds: float | None) -> Answer:
            reader = AnswerReader()
            messages = request.messages(1, self.limit)
            async with aclosing(self._transport.converse(messages, seconds)) as conversation:
                async for data in conversation:
                    answer = reader.read(data)
                    if answer is not None:
                        if answer.error is not None:
                            raise from_status(answer.error, request.request_id)
                        return answer
            raise ServerError("the server ended the stream without an answer; its log may tell why")

        return await self._transport.run(attempt, timeout, request.request_id)
