# ruff: noqa: N802 - the contract names the methods
"""GradientService: each method decodes its request, calls the domain and encodes the result."""

from collections.abc import Iterator
from typing import Any

from backwire_api.chunk_stream import encode_chunks
from backwire_api.file_stream import encode_file
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.wire import Framed
from backwire_server.access import permissions
from backwire_server.engine.catalog import catalog
from backwire_server.engine.graph import DType
from backwire_server.engine.narrow import SINGLE
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
from backwire_server.messages.executors import executor_to_proto
from backwire_server.messages.imports import receive
from backwire_server.messages.precisions import precision_to_proto
from backwire_server.messages.request_keys import key_of
from backwire_server.messages.session import session_spec, session_to_proto
from backwire_server.rpc.pipeline import PipelineStream
from backwire_server.rpc.scope import RpcScope
from backwire_server.rpc.status import Observer
from backwire_server.sessions.calls import LeaseCall
from backwire_server.sessions.describing import describe_session
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.store.store import SessionStore


class GradientServicer:
    """The service over a store of sessions. What each method does is said in gradient_service.proto.

    Messages that may have tensors come and go as Framed, with the tensors beside them; see `rpc.methods`.
    Methods raise the errors of the domain; the interceptor tells them to the client. Each gets the scope of its call.
    """

    def __init__(
        self, store: SessionStore, observer: Observer, executor: Executor = Executor.NUMPY, precision: DType = SINGLE
    ) -> None:
        """Sessions that name no executor get this one, and so those that name no precision."""
        self._store = store
        self._executor = executor_to_proto(executor)
        self._precision = precision_to_proto(precision)
        self._observer = observer

    def CreateSession(self, request: pb.CreateSessionRequest, scope: RpcScope) -> pb.CreateSessionResponse:
        """As in the contract."""
        key, durability = key_of(request), durability_of(request.durability)
        request.executor = request.executor or self._executor
        request.precision = request.precision or self._precision
        info = self._store.create(scope, session_spec(request, self._store.limits), key, durability)
        return pb.CreateSessionResponse(session=session_to_proto(info))

    def GetSession(self, request: pb.GetSessionRequest, scope: RpcScope) -> pb.GetSessionResponse:
        """As in the contract."""
        session = self._store.get(request.session_id, scope.caller)
        digest = session.digest(scope) if request.digest else ""
        return pb.GetSessionResponse(session=session_to_proto(session.standing(scope)), digest=digest)

    def ListSessions(self, request: pb.ListSessionsRequest, scope: RpcScope) -> pb.ListSessionsResponse:
        """As in the contract."""
        page = self._store.list(request.page_size, request.page_token, scope.caller)
        return pb.ListSessionsResponse(sessions=map(session_to_proto, page.sessions), next_page_token=page.next_token)

    def DeleteSession(self, request: pb.DeleteSessionRequest, scope: RpcScope) -> pb.DeleteSessionResponse:
        """As in the contract."""
        self._store.delete(scope, request.session_id, key_of(request))
        return pb.DeleteSessionResponse()

    def AttachSession(self, request: pb.AttachSessionRequest, scope: RpcScope) -> pb.AttachSessionResponse:
        """As in the contract."""
        session, key = self._store.get(request.session_id, scope.caller), key_of(request)
        holder, seconds = lease_terms(request)
        found = session.attach(scope, holder, seconds, request.take_over, key)
        lease = LeaseCall(found.number, found.holder, found.seconds)
        return pb.AttachSessionResponse(lease=lease_to_proto(lease))

    def DetachSession(self, request: pb.DetachSessionRequest, scope: RpcScope) -> pb.DetachSessionResponse:
        """As in the contract."""
        session, key = self._store.get(request.session_id, scope.caller), key_of(request)
        session.detach(scope, request.number, key)
        return pb.DetachSessionResponse()

    def Forward(self, framed: Framed[pb.ForwardRequest], scope: RpcScope) -> Framed[pb.ForwardResponse]:
        """As in the contract."""
        request, tensors = framed.message, framed.tensors
        session = self._store.get(request.session_id, scope.caller)
        if convert.is_training(request):
            permissions.check(scope.caller, "Forward", training=True)
            lease, key = request.lease, key_of(request, tensors)
            result = session.forward(scope, convert.forward_call(request, tensors), key, lease=lease)
        else:
            result = session.evaluate(scope, convert.forward_call(request, tensors))
        return Framed(convert.forward_response(result), convert.tensors_to_proto(result.outputs))

    def Backward(self, framed: Framed[pb.BackwardRequest], scope: RpcScope) -> Framed[pb.BackwardResponse]:
        """As in the contract."""
        request, tensors = framed.message, framed.tensors
        session, lease, key = self._store.get(request.session_id, scope.caller), request.lease, key_of(request, tensors)
        result = session.backward(scope, convert.backward_call(request, tensors), key, lease=lease)
        return Framed(convert.backward_response(result), convert.tensors_to_proto(result.input_gradients))

    def Step(self, request: pb.StepRequest, scope: RpcScope) -> pb.StepResponse:
        """As in the contract."""
        session, lease, key = self._store.get(request.session_id, scope.caller), request.lease, key_of(request)
        result = session.step(scope, convert.step_options(request.options), key, lease=lease)
        return pb.StepResponse(result=convert.step_result(result))

    def TrainStep(self, framed: Framed[pb.TrainStepRequest], scope: RpcScope) -> Framed[pb.TrainStepResponse]:
        """As in the contract."""
        request, tensors = framed.message, framed.tensors
        session, lease, key = self._store.get(request.session_id, scope.caller), request.lease, key_of(request, tensors)
        result = session.train_step(scope, convert.train_call(request, tensors), key, lease=lease)
        return Framed(convert.train_response(result), convert.tensors_to_proto(result.outputs))

    def GetParameters(
        self, request: pb.GetParametersRequest, scope: RpcScope
    ) -> Iterator[Framed[pb.GetParametersResponse]]:
        """As in the contract."""
        session = self._store.get(request.session_id, scope.caller)
        read = session.averages if request.averaged else session.parameters
        with read(scope, request.names) as snapshot:
            for name, array in snapshot:
                for chunk, data in encode_chunks(name, array):
                    yield Framed(pb.GetParametersResponse(chunk=chunk, step=snapshot.step), chunk=data)

    def SetParameters(
        self, request_iterator: Iterator[Framed[pb.SetParametersRequest]], scope: RpcScope
    ) -> pb.SetParametersResponse:
        """As in the contract."""
        first, requests = convert.with_head(request_iterator)
        head = first.message
        session = self._store.get(head.session_id, scope.caller)
        values = convert.parameter_values(session, head, requests)
        named = pb.SetParametersRequest(session_id=head.session_id, request_id=head.request_id)
        key = key_of(named, convert.tensors_to_proto(values.arrays), values.checksums)
        return pb.SetParametersResponse(step=session.set_parameters(scope, values.arrays, key, lease=head.lease).count)

    def GetGradients(
        self, request: pb.GetGradientsRequest, scope: RpcScope
    ) -> Iterator[Framed[pb.GetGradientsResponse]]:
        """As in the contract."""
        session = self._store.get(request.session_id, scope.caller)
        with session.gradients(scope, request.names) as snapshot:
            for name, array in snapshot:
                for chunk, data in encode_chunks(name, array):
                    message = pb.GetGradientsResponse(chunk=chunk, contributions=snapshot.contributions)
                    yield Framed(message, chunk=data)

    def Pipeline(self, request_iterator: Any, scope: RpcScope) -> Iterator[Any]:
        """As in the contract; `request_iterator` is an Incoming, and messages are serialized ones."""
        return PipelineStream(self._store, request_iterator, scope).run()

    def DescribeGraph(self, request: pb.DescribeGraphRequest, scope: RpcScope) -> pb.DescribeGraphResponse:
        """As in the contract."""
        limits = self._store.limits
        request.precision = request.precision or self._precision
        spec, shapes = inspect.graph_to_describe(request, limits)
        with self._store.processors.turn(scope):
            return inspect.description_to_proto(describe_session(scope, spec, shapes, limits))

    def ListOps(self, request: pb.ListOpsRequest, scope: RpcScope) -> pb.ListOpsResponse:  # noqa: ARG002
        """As in the contract."""
        return pb.ListOpsResponse(ops=map(inspect.op_to_proto, catalog()))

    def DescribeSession(self, framed: Framed[pb.DescribeSessionRequest], scope: RpcScope) -> pb.DescribeSessionResponse:
        """As in the contract."""
        session = self._store.get(framed.message.session_id, scope.caller)
        call = inspect.describe_call(framed.message, framed.tensors)
        return inspect.made_to_proto(session.describe(scope, call))

    def CheckGradients(self, framed: Framed[pb.CheckGradientsRequest], scope: RpcScope) -> pb.CheckGradientsResponse:
        """As in the contract."""
        session = self._store.get(framed.message.session_id, scope.caller)
        call = inspect.check_call(framed.message, framed.tensors)
        return inspect.check_response(session.check_gradients(scope, call))

    def GetStatus(self, request: pb.GetStatusRequest, scope: RpcScope) -> pb.GetStatusResponse:
        """As in the contract."""
        return self._observer.status(request, scope.caller)

    def GetSessionHistory(self, request: pb.GetSessionHistoryRequest, scope: RpcScope) -> pb.GetSessionHistoryResponse:
        """As in the contract."""
        return self._observer.history(request, scope.caller)

    def ZeroGradients(self, request: pb.ZeroGradientsRequest, scope: RpcScope) -> pb.ZeroGradientsResponse:
        """As in the contract."""
        session, lease, key = self._store.get(request.session_id, scope.caller), request.lease, key_of(request)
        return pb.ZeroGradientsResponse(contributions=session.zero_gradients(scope, key, lease=lease).count)

    def SaveCheckpoint(self, request: pb.SaveCheckpointRequest, scope: RpcScope) -> pb.SaveCheckpointResponse:
        """As in the contract."""
        session, key = self._store.get(request.session_id, scope.caller), key_of(request)
        saved = session.save_checkpoint(scope, checkpoint_name(request.name), key)
        return pb.SaveCheckpointResponse(checkpoint=checkpoint_to_proto(saved))

    def ListCheckpoints(self, request: pb.ListCheckpointsRequest, scope: RpcScope) -> pb.ListCheckpointsResponse:
        """As in the contract."""
        found = self._store.get(request.session_id, scope.caller).checkpoints(scope)
        return pb.ListCheckpointsResponse(checkpoints=map(checkpoint_to_proto, found))

    def DeleteCheckpoint(self, request: pb.DeleteCheckpointRequest, scope: RpcScope) -> pb.DeleteCheckpointResponse:
        """As in the contract."""
        session, key = self._store.get(request.session_id, scope.caller), key_of(request)
        session.delete_checkpoint(scope, checkpoint_name(request.name), key)
        return pb.DeleteCheckpointResponse()

    def RestoreCheckpoint(self, request: pb.RestoreCheckpointRequest, scope: RpcScope) -> pb.RestoreCheckpointResponse:
        """As in the contract."""
        session, lease, key = self._store.get(request.session_id, scope.caller), request.lease, key_of(request)
        name, step = restore_target(request)
        found = session.restore_checkpoint(scope, name, step, key, lease=lease)
        return pb.RestoreCheckpointResponse(checkpoint=checkpoint_to_proto(found))

    def ForkSession(self, request: pb.ForkSessionRequest, scope: RpcScope) -> pb.ForkSessionResponse:
        """As in the contract."""
        info = self._store.fork(scope, request.session_id, key_of(request))
        return pb.ForkSessionResponse(session=session_to_proto(info))

    def MoveSession(self, request: pb.MoveSessionRequest, scope: RpcScope) -> pb.MoveSessionResponse:
        """As in the contract."""
        session = self._store.get(request.session_id, scope.caller)
        return pb.MoveSessionResponse(address=session.move(scope, request.replica))

    def ExportSession(self, request: pb.ExportSessionRequest, scope: RpcScope) -> Iterator[pb.ExportSessionResponse]:
        """As in the contract."""
        pieces = self._store.export(scope, request.session_id)
        for chunk in encode_file(pieces):
            yield pb.ExportSessionResponse(chunk=chunk)

    def ImportSession(
        self, request_iterator: Iterator[pb.ImportSessionRequest], scope: RpcScope
    ) -> pb.ImportSessionResponse:
        """As in the contract."""
        head, requests = convert.with_head(request_iterator)
        with self._store.scratch() as path:
            received = receive(head, requests, path, self._store.limits)
            key, durability = key_of(received), durability_of(head.durability)
            info = self._store.import_session(scope, path, key, durability)
        return pb.ImportSessionResponse(session=session_to_proto(info))
