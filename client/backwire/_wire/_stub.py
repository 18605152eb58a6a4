"""The methods of the service, as a channel offers them."""

from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message_factory import GetMessageClass

from backwire_api import wire
from backwire_api.v1 import gradient_service_pb2 as pb

if TYPE_CHECKING:  # at run time these are no generic types
    from backwire_api.wire import Framed

    Request = TypeVar("Request")
    Response = TypeVar("Response")
    Unary = grpc.UnaryUnaryMultiCallable[Request, Response]
    Download = grpc.UnaryStreamMultiCallable[Request, Response]
    Upload = grpc.StreamUnaryMultiCallable[Request, Response]

_SERVICE = pb.DESCRIPTOR.services_by_name["GradientService"]
_KINDS = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary"}


class Stub:
    """The methods of the service but Pipeline. Messages that may have tensors are Framed."""

    CreateSession: "Unary[pb.CreateSessionRequest, pb.CreateSessionResponse]"
    GetSession: "Unary[pb.GetSessionRequest, pb.GetSessionResponse]"
    ListSessions: "Unary[pb.ListSessionsRequest, pb.ListSessionsResponse]"
    DeleteSession: "Unary[pb.DeleteSessionRequest, pb.DeleteSessionResponse]"
    AttachSession: "Unary[pb.AttachSessionRequest, pb.AttachSessionResponse]"
    DetachSession: "Unary[pb.DetachSessionRequest, pb.DetachSessionResponse]"
    Forward: "Unary[Framed[pb.ForwardRequest], Framed[pb.ForwardResponse]]"
    Backward: "Unary[Framed[pb.BackwardRequest], Framed[pb.BackwardResponse]]"
    Step: "Unary[pb.StepRequest, pb.StepResponse]"
    TrainStep: "Unary[Framed[pb.TrainStepRequest], Framed[pb.TrainStepResponse]]"
    GetParameters: "Download[pb.GetParametersRequest, Framed[pb.GetParametersResponse]]"
    SetParameters: "Upload[Framed[pb.SetParametersRequest], pb.SetParametersResponse]"
    GetGradients: "Download[pb.GetGradientsRequest, Framed[pb.GetGradientsResponse]]"
    ZeroGradients: "Unary[pb.ZeroGradientsRequest, pb.ZeroGradientsResponse]"
    SaveCheckpoint: "Unary[pb.SaveCheckpointRequest, pb.SaveCheckpointResponse]"
    ListCheckpoints: "Unary[pb.ListCheckpointsRequest, pb.ListCheckpointsResponse]"
    DeleteCheckpoint: "Unary[pb.DeleteCheckpointRequest, pb.DeleteCheckpointResponse]"
    RestoreCheckpoint: "Unary[pb.RestoreCheckpointRequest, pb.RestoreCheckpointResponse]"
    ForkSession: "Unary[pb.ForkSessionRequest, pb.ForkSessionResponse]"
    MoveSession: "Unary[pb.MoveSessionRequest, pb.MoveSessionResponse]"
    ExportSession: "Download[pb.ExportSessionRequest, pb.ExportSessionResponse]"
    ImportSession: "Upload[pb.ImportSessionRequest, pb.ImportSessionResponse]"
    DescribeGraph: "Unary[pb.DescribeGraphRequest, pb.DescribeGraphResponse]"
    DescribeSession: "Unary[Framed[pb.DescribeSessionRequest], pb.DescribeSessionResponse]"
    ListOps: "Unary[pb.ListOpsRequest, pb.ListOpsResponse]"
    CheckGradients: "Unary[Framed[pb.CheckGradientsRequest], pb.CheckGradientsResponse]"
    GetStatus: "Unary[pb.GetStatusRequest, pb.GetStatusResponse]"
    GetSessionHistory: "Unary[pb.GetSessionHistoryRequest, pb.GetSessionHistoryResponse]"

    def __init__(self, channel: grpc.Channel) -> None:
        for name in Stub.__annotations__:
            method = _SERVICE.methods_by_name[name]
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            kind: Any = getattr(channel, _KINDS[method.client_streaming, method.server_streaming])
            path = f"/{_SERVICE.full_name}/{name}"
            setattr(self, name, kind(path, wire.writer(request), wire.reader(response)))
