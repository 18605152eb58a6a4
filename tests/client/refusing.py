"""What makes a call fail with a status and details of a test's choice."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

Fault = Callable[[Any], None]


def refusal(
    code: grpc.StatusCode,
    message: str = "refused; do otherwise",
    *,
    reason: str = "",
    domain: str = "backwire",
    field: str = "",
    retry_after: float | None = None,
) -> Fault:
    """Returns what makes a call fail with this status and these details."""
    details: list[Any] = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return lambda context: context.abort_with_status(rpc_status.to_status(status))
