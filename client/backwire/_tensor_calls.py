"""Calls with tensors: in one message each way where they fit, else in chunks on a stream; the caller cannot tell."""

from typing import Any

from backwire import _messages
from backwire._errors import ServerError, TooLargeError
from backwire._failures import from_status
from backwire._pipeline_messages import Answer, AnswerReader, Request, fits
from backwire._transport import Transport
from backwire_api.reasons import Reason
from backwire_api.wire import Framed


class TensorCalls:
    """Forward, Backward and TrainStep of one session. May be used by several threads at once.

    Attributes:
        limit: The most bytes that a message may have.
    """

    def __init__(self, transport: Transport, limit: int) -> None:
        self.limit = limit
        self._transport = transport
        self._streamed: set[str] = set()
        stub = transport.stub
        self._rpcs: dict[str, Any] = {
            "forward": stub.Forward,
            "backward": stub.Backward,
            "train_step": stub.TrainStep,
        }

    def send(self, kind: str, framed: Framed[Any], timeout: float | None, request_id: str | None) -> Answer:
        """Returns the answer to a request; `kind` is its name in PipelineRequest."""
        if kind not in self._streamed and fits(framed.tensors, self.limit):
            try:
                response = self._transport.unary(self._rpcs[kind], framed, timeout=timeout, request_id=request_id)
                return Answer(response.message, _messages.decode(response.tensors))
            except TooLargeError as error:
                if error.reason != Reason.MESSAGE_TOO_LARGE:
                    raise
                self._streamed.add(kind)  # nothing was changed, and the next answers will hardly be smaller
        return self._exchange(Request(kind, framed, request_id=request_id), timeout)

    def _exchange(self, request: Request, timeout: float | None) -> Answer:
        """Returns the answer to a request on a stream of its own."""

        def attempt(seconds: float | None) -> Answer:
            reader = AnswerReader()
            for data in self._transport.converse(request.messages(1, self.limit), seconds):
                answer = reader.read(data)
                if answer is not None:
                    if answer.error is not None:
                        raise from_status(answer.error, request.request_id)
                    return answer
            raise ServerError("the server ended the stream without an answer; its log may tell why")

        return self._transport.run(attempt, timeout, request.request_id)
