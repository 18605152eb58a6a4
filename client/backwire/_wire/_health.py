"""Asks a server whether it serves, by the standard gRPC health protocol."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from backwire._errors import BackwireError
from backwire._wire._failures import from_rpc_error

CHECK = "/grpc.health.v1.Health/Check"


def checking(channel: Any) -> Any:
    """Returns the method of a channel that `health` calls; to be had before the channel may be closed."""
    return channel.unary_unary(
        CHECK,
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


def health(check: Any, *, timeout: float, wait_for_ready: bool = False) -> str:
    """Returns the status of the whole server: `SERVING`, `NOT_SERVING` or `UNKNOWN`.

    `check` is what `checking` gave. Raises UnavailableError or DeadlineExceededError when there is no answer within
    `timeout` seconds, and ValueError when the channel is closed.
    """
    request = health_pb2.HealthCheckRequest()
    failure: BackwireError
    try:
        response = check(request, timeout=timeout, wait_for_ready=wait_for_ready)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
    except grpc.RpcError as error:
        failure = from_rpc_error(error, None)
    raise failure
