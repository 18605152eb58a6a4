"""Asks a server whether it serves, by the standard gRPC health protocol."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backwire._errors import BackwireError
from backwire._failures import from_rpc_error


def health(channel: grpc.Channel, *, timeout: float, wait_for_ready: bool = False) -> str:
    """Returns the status of the whole server: `SERVING`, `NOT_SERVING` or `UNKNOWN`.

    Raises UnavailableError or DeadlineExceededError when it does not answer within `timeout` seconds.
    """
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    failure: BackwireError
    try:
        response = stub.Check(request, timeout=timeout, wait_for_ready=wait_for_ready)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
    except grpc.RpcError as error:
        failure = from_rpc_error(error, None)
    raise failure
