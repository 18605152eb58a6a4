"""Messages of clients of a server with workers."""

import zlib
from typing import Any

import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, tensor_pb2

X = np.array([1.0, -2.0, 4.0])
TIMEOUT = 20.0


def dot_graph() -> graph_pb2.Graph:
    """The loss sum(x * w), whose gradient by w is x."""
    x = bw.input("x", (3,), dtype="float64")
    w = bw.parameter("w", [1.0, 2.0, 3.0], dtype="float64")
    return bw.graph(loss=bw.sum(x * w)).proto


def create(stub: Any, request_id: str = "", **fields: Any) -> pb.Session:
    request = pb.CreateSessionRequest(graph=dot_graph(), optimizer=bw.SGD(0.5).to_proto(), request_id=request_id)
    request.MergeFrom(pb.CreateSessionRequest(**fields))
    session: pb.Session = stub.CreateSession(request, timeout=TIMEOUT).session
    return session


def reason_of(error: Any) -> str:
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    assert status is not None
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")


def whole(name: str, array: Any) -> tensor_pb2.TensorChunk:
    """A tensor in one chunk."""
    data = tensors.encode(array)
    return tensor_pb2.TensorChunk(
        name=name, dtype=data.dtype, shape=data.shape, data=data.data, crc32=zlib.crc32(data.data)
    )


def inputs() -> dict[str, Any]:
    return {"x": tensors.encode(X)}
