"""The part of the test double that tells how it is doing: what a test has it tell, one answer after another."""

from collections.abc import Callable
from typing import Any

import grpc

from backwire_api.v1 import gradient_service_pb2 as service_pb2


class FakeStatus:
    """Answers GetStatus and GetSessionHistory from `statuses` and `histories`; fails when these have run out."""

    _serve: Callable[..., Any]
    refuse: Any

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[service_pb2.GetStatusResponse] = []
        self.histories: list[service_pb2.GetSessionHistoryResponse] = []

    def GetStatus(self, request: Any, context: Any) -> Any:
        return self._serve("GetStatus", request, context, lambda: self._next(self.statuses, context))

    def GetSessionHistory(self, request: Any, context: Any) -> Any:
        return self._serve("GetSessionHistory", request, context, lambda: self._next(self.histories, context))

    def _next(self, answers: list[Any], context: Any) -> Any:
        if not answers:
            self.refuse(grpc.StatusCode.NOT_FOUND, "there is no such session; use another", reason="SESSION_NOT_FOUND")(
                context
            )
        return answers.pop(0)
