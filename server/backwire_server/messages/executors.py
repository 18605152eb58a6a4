"""Executors, as the contract tells them."""

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.calls import known
from backwire_server.sessions.executors import Executor

_EXECUTORS = {
    pb.EXECUTOR_UNSPECIFIED: Executor.NUMPY,  # that of all sessions which were created before there was another
    pb.EXECUTOR_NUMPY: Executor.NUMPY,
    pb.EXECUTOR_JAX: Executor.JAX,
}
_NUMBERS = {executor: number for number, executor in _EXECUTORS.items()}


def executor_of(number: pb.Executor.ValueType) -> Executor:
    """Returns the executor, NUMPY where the request names none; raises InvalidRequest for one that does not exist."""
    return known(_EXECUTORS, number, "executor")


def executor_to_proto(executor: Executor) -> pb.Executor.ValueType:
    """Returns the number of the executor."""
    return _NUMBERS[executor]
