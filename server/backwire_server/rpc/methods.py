"""The methods of the service as gRPC wants them: each with its kind, and what reads and writes its messages."""

from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from backwire_api import wire
from backwire_api.v1 import gradient_service_pb2

SERVICE = gradient_service_pb2.DESCRIPTOR.services_by_name["GradientService"]

UNARY = {method.name for method in SERVICE.methods if not (method.client_streaming or method.server_streaming)}
"""The methods whose calls are of one message and have one for an answer."""

_KINDS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def handlers(servicer: object) -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
    """Returns a handler for every method of the contract, by name; messages that may have tensors are Framed."""
    return {method.name: _handler(method, getattr(servicer, method.name)) for method in SERVICE.methods}


def _handler(method: MethodDescriptor, behaviour: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    kind: Any = _KINDS[method.client_streaming, method.server_streaming]
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    found: grpc.RpcMethodHandler[Any, Any] = kind(behaviour, wire.reader(request), wire.writer(response))
    return found
