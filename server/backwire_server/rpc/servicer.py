# ruff: noqa: N802 - the contract names the methods
"""GradientService: each method decodes its request, calls the domain and encodes the result."""

from collections.abc import Iterator
from typing import Any

import grpc

from backwire_api.chunk_stream import encode_chunks
from backwire_api.file_stream import encode_file
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.wire import Framed
from backwire_server.engine.catalog import catalog
from backwire_server.messages import calls as convert
from backwire_server.messages import inspection as inspect
from backwire_server.messages.durability import (
    checkpoint_name,
    checkpoint_to_proto,
    durability_of,
    lease_terms,
    lease_to_proto,
    restore_target,
)
from backwire_server.messages.imports import receive
from backwire_server.messages.request_keys import key_of
from backwire_server.messages.session import session_spec, session_to_proto
from backwire_server.rpc.pipeline import PipelineStream
from backwire_server.rpc.scope import RpcScope
from backwire_server.sessions.calls import LeaseCall
from backwire_server.sessions.describing import describe_session
from backwire_server.sessions.store import SessionStore

Context = grpc.ServicerContext


class GradientServicer:
    """The service over a store of sessions. What each method does is said in gradient_service.proto.

    Messages that may have tensors come and go as Framed, with the tensors beside them; see `rpc.methods`.
    Methods raise the errors of the domain; the interceptor tells them to the client.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.CreateSessionResponse:
        """As in the contract."""
        key, durability = key_of(request), durability_of(request.durability)
        info = self._store.create(RpcScope(context), session_spec(request, self._store.limits), key, durability)
        return pb.CreateSessionResponse(session=session_to_proto(info))

    def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """As in the contract."""
        session = self._store.get(request.session_id)
        digest = session.digest(RpcScope(context)) if request.digest else ""
        return pb.GetSessionResponse(session=session_to_proto(session.info()), digest=digest)

    def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:  # noqa: ARG002
        """As in the contract."""
        page = self._store.list(request.page_size, request.page_token)
        return pb.ListSessionsResponse(sessions=map(session_to_proto, page.sessions), next_page_token=page.next_token)

    def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        """As in the contract."""
        key = key_of(request)
        self._store.delete(RpcScope(context), request.session_id, key)
        return pb.DeleteSessionResponse()

    def AttachSession(self, request: pb.AttachSessionRequest, context: Context) -> pb.AttachSessionResponse:
        """As in the contract."""
        session, key = self._store.get(request.session_id), key_of(request)
        holder, seconds = lease_terms(request)
        found = session.attach(RpcScope(context), holder, seconds, request.take_over, key)
        lease = LeaseCall(found.number, found.holder, found.seconds)
        return pb.AttachSessionResponse(lease=lease_to_proto(lease))

    def DetachSession(self, request: pb.DetachSessionRequest, context: Context) -> pb.DetachSessionResponse:
        """As in the contract."""
        session, key = self._store.get(request.session_id), key_of(request)
        session.detach(RpcScope(context), request.number, key)
        return pb.DetachSessionResponse()

    def Forward(self, framed: Framed[pb.ForwardRequest], context: Context) -> Framed[pb.ForwardResponse]:
        """As in the contract."""
        request, tensors = framed.message, framed.tensors
        scope, session = RpcScope(context), self._store.get(request.session_id)
        if convert.is_training(request):
            lease, key = request.lease, key_of(request, tensors)
            result = session.forward(scope, convert.forward_call(request, tensors), key, lease=lease)
        else:
            result = session.evaluate(scope, convert.forward_call(request, tensors))
        return Framed(convert.forward_response(result), convert.tensors_to_proto(result.outputs))

    def Backward(self, framed: Framed[pb.BackwardRequest], context: Context) -> Framed[pb.BackwardResponse]:
        """As in the contract."""
        request, tensors = framed.message, framed.tensors
        session, lease, key = self._store.get(request.session_id), request.lease, key_of(request, tensors)
        result = session.backward(RpcScope(context), convert.backward_call(request, tensors), key, lease=lease)
        return Framed(convert.backward_response(result), convert.tensors_to_proto(result.input_gradients))

    def Step(self, request: pb.StepRequest, context: Context) -> pb.StepResponse:
        """As in the contract."""
        session, lease, key = self._store.get(request.session_id), request.lease, key_of(request)
        result = session.step(RpcScope(context), convert.step_options(request.options), key, lease=lease)
        return pb.StepResponse(result=convert.step_result(result))

    def TrainStep(self, framed: Framed[pb.TrainStepRequest], context: Context) -> Framed[pb.TrainStepResponse]:
        """As in the contract."""
        request, tensors = framed.message, framed.tensors
        session, lease, key = self._store.get(request.session_id), request.lease, key_of(request, tensors)
        result = session.train_step(RpcScope(context), convert.train_call(request, tensors), key, lease=lease)
        return Framed(convert.train_response(result), convert.tensors_to_proto(result.outputs))

    def GetParameters(
        self, request: pb.GetParametersRequest, context: Context
    ) -> Iterator[Framed[pb.GetParametersResponse]]:
        """As in the contract."""
        session = self._store.get(request.session_id)
        read = session.averages if request.averaged else session.parameters
        with read(RpcScope(context), request.names) as snapshot:
            for name, array in snapshot:
                for chunk, data in encode_chunks(name, array):
                    yield Framed(pb.GetParametersResponse(chunk=chunk, step=snapshot.step), chunk=data)

    def SetParameters(
        self, request_iterator: Iterator[Framed[pb.SetParametersRequest]], context: Context
    ) -> pb.SetParametersResponse:
        """As in the contract."""
        first, requests = convert.with_head(request_iterator)
        head, scope = first.message, RpcScope(context)
        session = self._store.get(head.session_id)
        values = convert.parameter_values(session, head, requests)
        named = pb.SetParametersRequest(session_id=head.session_id, request_id=head.request_id)
        key = key_of(named, convert.tensors_to_proto(values.arrays), values.checksums)
        return pb.SetParametersResponse(step=session.set_parameters(scope, values.arrays, key, lease=head.lease).count)

    def GetGradients(
        self, request: pb.GetGradientsRequest, context: Context
    ) -> Iterator[Framed[pb.GetGradientsResponse]]:
        """As in the contract."""
        session = self._store.get(request.session_id)
        with session.gradients(RpcScope(context), request.names) as snapshot:
            for name, array in snapshot:
                for chunk, data in encode_chunks(name, array):
                    message = pb.GetGradientsResponse(chunk=chunk, contributions=snapshot.contributions)
                    yield Framed(message, chunk=data)

    def Pipeline(self, request_iterator: Any, context: Context) -> Iterator[Any]:
        """As in the contract; `request_iterator` is an Incoming, and messages are serialized ones."""
        return PipelineStream(self._store, request_iterator, context).run()

    def DescribeGraph(self, request: pb.DescribeGraphRequest, context: Context) -> pb.DescribeGraphResponse:
        """As in the contract."""
        limits = self._store.limits
        spec, shapes = inspect.graph_to_describe(request, limits)
        return inspect.description_to_proto(describe_session(RpcScope(context), spec, shapes, limits))

    def ListOps(self, request: pb.ListOpsRequest, context: Context) -> pb.ListOpsResponse:  # noqa: ARG002
        """As in the contract."""
        return pb.ListOpsResponse(ops=map(inspect.op_to_proto, catalog()))

    def CheckGradients(self, framed: Framed[pb.CheckGradientsRequest], context: Context) -> pb.CheckGradientsResponse:
        """As in the contract."""
        session, call = self._store.get(framed.message.session_id), inspect.check_call(framed.message, framed.tensors)
        return inspect.check_response(session.check_gradients(RpcScope(context), call))

    def ZeroGradients(self, request: pb.ZeroGradientsRequest, context: Context) -> pb.ZeroGradientsResponse:
        """As in the contract."""
        session, lease, key = self._store.get(request.session_id), request.lease, key_of(request)
        return pb.ZeroGradientsResponse(contributions=session.zero_gradients(RpcScope(context), key, lease=lease).count)

    def SaveCheckpoint(self, request: pb.SaveCheckpointRequest, context: Context) -> pb.SaveCheckpointResponse:
        """As in the contract."""
        session, key = self._store.get(request.session_id), key_of(request)
        saved = session.save_checkpoint(RpcScope(context), checkpoint_name(request.name), key)
        return pb.SaveCheckpointResponse(checkpoint=checkpoint_to_proto(saved))

    def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Context) -> pb.ListCheckpointsResponse:
        """As in the contract."""
        found = self._store.get(request.session_id).checkpoints(RpcScope(context))
        return pb.ListCheckpointsResponse(checkpoints=map(checkpoint_to_proto, found))

    def DeleteCheckpoint(self, request: pb.DeleteCheckpointRequest, context: Context) -> pb.DeleteCheckpointResponse:
        """As in the contract."""
        session, key = self._store.get(request.session_id), key_of(request)
        session.delete_checkpoint(RpcScope(context), checkpoint_name(request.name), key)
        return pb.DeleteCheckpointResponse()

    def RestoreCheckpoint(self, request: pb.RestoreCheckpointRequest, context: Context) -> pb.RestoreCheckpointResponse:
        """As in the contract."""
        session, lease, key = self._store.get(request.session_id), request.lease, key_of(request)
        name, step = restore_target(request)
        found = session.restore_checkpoint(RpcScope(context), name, step, key, lease=lease)
        return pb.RestoreCheckpointResponse(checkpoint=checkpoint_to_proto(found))

    def ForkSession(self, request: pb.ForkSessionRequest, context: Context) -> pb.ForkSessionResponse:
        """As in the contract."""
        key = key_of(request)
        info = self._store.fork(RpcScope(context), request.session_id, key)
        return pb.ForkSessionResponse(session=session_to_proto(info))

    def ExportSession(self, request: pb.ExportSessionRequest, context: Context) -> Iterator[pb.ExportSessionResponse]:
        """As in the contract."""
        pieces = self._store.export(RpcScope(context), request.session_id)
        for chunk in encode_file(pieces):
            yield pb.ExportSessionResponse(chunk=chunk)

    def ImportSession(
        self, request_iterator: Iterator[pb.ImportSessionRequest], context: Context
    ) -> pb.ImportSessionResponse:
        """As in the contract."""
        head, requests = convert.with_head(request_iterator)
        with self._store.scratch() as path:
            received = receive(head, requests, path, self._store.limits)
            key, durability = key_of(received), durability_of(head.durability)
            info = self._store.import_session(RpcScope(context), path, key, durability)
        return pb.ImportSessionResponse(session=session_to_proto(info))
