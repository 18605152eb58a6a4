"""A test double of the service, which keeps what the contract promises, and can fail on demand."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
from tests.client.fake_durability import FakeDurability
from tests.client.fake_status import FakeStatus
from tests.client.refusing import Fault, refusal

from backwire_api import chunk_stream, tensors
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.v1 import gradient_service_pb2_grpc as service_grpc
from backwire_api.v1 import tensor_pb2


class FakeService(FakeStatus, FakeDurability, service_grpc.GradientServiceServicer):
    """Sessions whose output `y` is twice the input `x`, and whose parameters are what was given.

    `before[rpc]` fails calls before they have an effect, `after[rpc]` loses the answers of calls that had one, and
    `streams` is what Pipeline streams do first; each is used once. Mutations are deduplicated by request_id.
    """

    refuse = staticmethod(refusal)

    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.metadata: list[dict[str, str]] = []
        self.remaining: list[float] = []
        self.before: dict[str, list[Fault]] = defaultdict(list)
        self.after: dict[str, list[Fault]] = defaultdict(list)
        self.streams: list[Callable[[Any, Any], Iterator[Any]]] = []
        self.sessions: dict[str, service_pb2.Session] = {}
        self.parameters: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.ops: list[service_pb2.OpInfo] = []
        self._answers: dict[str, Any] = {}
        self._lock = threading.Lock()

    def _serve(self, rpc: str, request: Any, context: Any, apply: Callable[[], Any]) -> Any:
        self.requests[rpc].append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining.append(context.time_remaining())
        if self.before[rpc]:
            self.before[rpc].pop(0)(context)
        self.check_lease(rpc, request, context)
        request_id = getattr(request, "request_id", "")
        with self._lock:
            if not request_id:
                answer = apply()
            elif request_id not in self._answers:
                self._answers[request_id] = answer = apply()
            else:
                answer = self._answers[request_id]
        if self.after[rpc]:
            self.after[rpc].pop(0)(context)
        return answer

    def _session(self, session_id: str, context: Any) -> service_pb2.Session:
        if session_id not in self.sessions:
            refusal(grpc.StatusCode.NOT_FOUND, "no such session; create one", reason="SESSION_NOT_FOUND")(context)
        return self.sessions[session_id]

    def CreateSession(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            session = service_pb2.Session(
                session_id=f"session-{len(self.sessions)}",
                inputs=request.graph.inputs,
                outputs=sorted(request.graph.outputs),
                has_loss=bool(request.graph.loss),
                seed=request.seed,
                durability=request.durability or service_pb2.DURABILITY_JOURNAL,
            )
            session.create_time.FromSeconds(1_700_000_000)
            session.limits.pass_ttl.FromSeconds(60)
            if request.HasField("optimizer"):
                session.optimizer.CopyFrom(request.optimizer)
            for parameter in request.graph.parameters:
                value = tensors.decode(parameter.value)
                self.parameters[parameter.name] = value
                info = session.parameters.add(name=parameter.name, frozen=parameter.frozen, shape=value.shape)
                info.dtype = tensors.data_type_of(value.dtype)
                if not parameter.frozen:
                    self.gradients[parameter.name] = np.zeros_like(value)
            self.sessions[session.session_id] = session
            return service_pb2.CreateSessionResponse(session=session)

        return self._serve("CreateSession", request, context, apply)

    def GetSession(self, request: Any, context: Any) -> Any:
        session = self._session(request.session_id, context)
        response = service_pb2.GetSessionResponse(session=session, digest=f"{session.step:064x}" * request.digest)
        return self._serve("GetSession", request, context, lambda: response)

    def ListSessions(self, request: Any, context: Any) -> Any:
        ids = list(self.sessions)
        start = int(request.page_token or 0)
        end = start + (request.page_size or 2)
        response = service_pb2.ListSessionsResponse(
            sessions=[self.sessions[each] for each in ids[start:end]],
            next_page_token=str(end) if end < len(ids) else "",
        )
        return self._serve("ListSessions", request, context, lambda: response)

    def DeleteSession(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            self._session(request.session_id, context)
            del self.sessions[request.session_id]
            return service_pb2.DeleteSessionResponse()

        return self._serve("DeleteSession", request, context, apply)

    def Forward(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            session = self._session(request.session_id, context)
            x = tensors.decode(request.inputs["x"])
            response = service_pb2.ForwardResponse(loss=float(x.sum()), step=session.step)
            response.outputs["y"].CopyFrom(tensors.encode(x * 2))
            if request.mode == service_pb2.MODE_TRAIN:
                response.forward_id = request.forward_id or "pass-1"
            return response

        return self._serve("Forward", request, context, apply)

    def Backward(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            session = self._session(request.session_id, context)
            session.contributions += 1
            response = service_pb2.BackwardResponse(contributions=session.contributions)
            for name in request.wrt:
                response.input_gradients[name].CopyFrom(request.output_gradients["y"])
            return response

        return self._serve("Backward", request, context, apply)

    def Step(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            return service_pb2.StepResponse(result=self._step(request, context))

        return self._serve("Step", request, context, apply)

    def TrainStep(self, request: Any, context: Any) -> Any:
        def apply() -> Any:
            response = service_pb2.TrainStepResponse(result=self._step(request, context), loss=0.25)
            for name in request.outputs:
                response.outputs[name].CopyFrom(tensors.encode(tensors.decode(request.inputs["x"]) * 2))
            return response

        return self._serve("TrainStep", request, context, apply)

    def _step(self, request: Any, context: Any) -> service_pb2.StepResult:
        session = self._session(request.session_id, context)
        session.step += 1
        digest = f"{session.step:064x}" * request.options.digest
        return service_pb2.StepResult(
            step=session.step, gradient_norm=1.5, learning_rate=0.1, contributions=1, digest=digest
        )

    def GetParameters(self, request: Any, context: Any) -> Any:
        return self._stream("GetParameters", request, context, self.parameters, service_pb2.GetParametersResponse)

    def GetGradients(self, request: Any, context: Any) -> Any:
        return self._stream("GetGradients", request, context, self.gradients, service_pb2.GetGradientsResponse)

    def _stream(self, rpc: str, request: Any, context: Any, values: dict[str, Any], response: Any) -> Iterator[Any]:
        self._serve(rpc, request, context, lambda: None)
        for name in request.names or values:
            for chunk, data in chunk_stream.encode_chunks(name, values[name]):
                chunk.data = bytes(data)
                yield response(chunk=chunk)

    def SetParameters(self, requests: Any, context: Any) -> Any:
        messages = list(requests)
        if [each.last for each in messages] != [False] * (len(messages) - 1) + [True]:
            refusal(grpc.StatusCode.INVALID_ARGUMENT, "mark the final message, and no other, as the last")(context)

        def apply() -> Any:
            chunks = [(each.chunk, each.chunk.data) for each in messages if each.HasField("chunk")]
            self.parameters |= dict(chunk_stream.decode_chunks(chunks, sum(len(data) for _, data in chunks)))
            return service_pb2.SetParametersResponse()

        return self._serve("SetParameters", messages[0], context, apply)

    def ZeroGradients(self, request: Any, context: Any) -> Any:
        return self._serve(
            "ZeroGradients", request, context, lambda: service_pb2.ZeroGradientsResponse(contributions=3)
        )

    def Pipeline(self, requests: Any, context: Any) -> Any:
        if self.streams:
            yield from self.streams.pop(0)(requests, context)
        for request in requests:
            yield self.answered(request, context)

    def answered(self, request: Any, context: Any) -> Any:
        """The answer to a request of a stream."""
        kind = request.WhichOneof("kind")
        rpc = "".join(part.title() for part in kind.split("_"))
        answer = getattr(self, rpc)(getattr(request, kind), context)
        return service_pb2.PipelineResponse(id=request.id, **{kind: answer})

    def DescribeGraph(self, request: Any, context: Any) -> Any:
        response = service_pb2.DescribeGraphResponse(parameter_count=len(request.graph.parameters))
        for name, shape in sorted(request.input_shapes.items()):
            response.values.add(name=name, dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape.sizes)
        return self._serve("DescribeGraph", request, context, lambda: response)

    def DescribeSession(self, request: Any, context: Any) -> Any:
        session = self._session(request.session_id, context)
        response = service_pb2.DescribeSessionResponse(forward_seconds=0.5 * request.passes)
        response.graph.inputs.extend(session.inputs)
        if request.inputs or request.input_shapes:
            response.description.nodes.add(output="y", forward_flops=3, backward_seconds=0.25 * request.passes)
        return self._serve("DescribeSession", request, context, lambda: response)

    def ListOps(self, request: Any, context: Any) -> Any:
        return self._serve("ListOps", request, context, lambda: service_pb2.ListOpsResponse(ops=self.ops))

    def CheckGradients(self, request: Any, context: Any) -> Any:
        self._session(request.session_id, context)
        response = service_pb2.CheckGradientsResponse(dtype=tensor_pb2.DATA_TYPE_FLOAT64, loss=2.0)
        for index, name in enumerate(request.names or self.gradients):
            response.parameters.add(name=name, checked=1, worst_error=0.5 * index, worst_index=[0, index])
        return self._serve("CheckGradients", request, context, lambda: response)
