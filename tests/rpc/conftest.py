"""Real servers in this process, on ports of their own, and messages for them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import ArrayLike
from tests.graphs import dot_graph
from tests.waiting import until

from backwire_api import chunk_stream, tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc
from backwire_api.v1 import graph_pb2, optimizer_pb2, tensor_pb2
from backwire_server.config_parts import Capacity
from backwire_server.rpc.server import Server
from backwire_server.sessions.limits import Limits

TIMEOUT = 20.0
LONGER = (0.2, 1.0, 5.0, TIMEOUT)
"""The seconds that a call has whose time is to be up: the least in which a server has come to it, on any machine."""


class Refusal:
    """What a failed call told: status code, reason, field, and the details that go with some errors."""

    def __init__(self, error: Any) -> None:
        self.code = error.code()
        self.message = error.details()
        self.reason = self.field = self.quota = ""
        self.retry_after: float | None = None
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            self._read(detail)

    def _read(self, detail: Any) -> None:
        info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
        if detail.Unpack(info):
            assert info.domain == "backwire"
            self.reason = info.reason
        elif detail.Unpack(request):
            self.field = request.field_violations[0].field
        elif detail.Unpack(retry):
            self.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Unpack(quota):
            self.quota = quota.violations[0].subject


SGD = optimizer_pb2.Optimizer(learning_rate=0.5, sgd=optimizer_pb2.Sgd())


class Api:
    """A client of one server that speaks the contract, with shorter words."""

    def __init__(self, server: Server, channel: grpc.Channel | None = None) -> None:
        self.server = server
        self.channel = channel or grpc.insecure_channel(server.address, [("grpc.max_receive_message_length", -1)])
        self.stub = pb_grpc.GradientServiceStub(self.channel)

    def create(self, graph: graph_pb2.Graph | None = None, **request: Any) -> str:
        """Returns the id of a new session."""
        request.setdefault("optimizer", SGD)
        made = pb.CreateSessionRequest(graph=graph or dot_graph(), **request)
        return self.stub.CreateSession(made, timeout=TIMEOUT).session.session_id

    def forward(self, session_id: str, x: ArrayLike = (1.0, -2.0, 4.0), **request: Any) -> pb.ForwardResponse:
        inputs = {"x": tensors.encode(np.asarray(x))}
        return self.stub.Forward(pb.ForwardRequest(session_id=session_id, inputs=inputs, **request), timeout=TIMEOUT)

    def backward(self, session_id: str, forward_id: str, **request: Any) -> pb.BackwardResponse:
        made = pb.BackwardRequest(session_id=session_id, forward_id=forward_id, **request)
        return self.stub.Backward(made, timeout=TIMEOUT)

    def step(self, session_id: str, request_id: str = "", **options: Any) -> pb.StepResult:
        made = pb.StepRequest(session_id=session_id, options=pb.StepOptions(**options), request_id=request_id)
        return self.stub.Step(made, timeout=TIMEOUT).result

    def train(self, session_id: str, x: ArrayLike = (1.0, -2.0, 4.0), **request: Any) -> pb.TrainStepResponse:
        inputs = {"x": tensors.encode(np.asarray(x))}
        made = pb.TrainStepRequest(session_id=session_id, inputs=inputs, **request)
        return self.stub.TrainStep(made, timeout=TIMEOUT)

    def info(self, session_id: str) -> pb.Session:
        return self.stub.GetSession(pb.GetSessionRequest(session_id=session_id), timeout=TIMEOUT).session

    def parameters(self, session_id: str, *names: str, averaged: bool = False) -> dict[str, Any]:
        request = pb.GetParametersRequest(session_id=session_id, names=names, averaged=averaged)
        stream = self.stub.GetParameters(request, timeout=TIMEOUT)
        return dict(chunk_stream.decode_chunks(((part.chunk, part.chunk.data) for part in stream), 1 << 30))

    def gradients(self, session_id: str, *names: str) -> dict[str, Any]:
        stream = self.stub.GetGradients(pb.GetGradientsRequest(session_id=session_id, names=names), timeout=TIMEOUT)
        return dict(chunk_stream.decode_chunks(((part.chunk, part.chunk.data) for part in stream), 1 << 30))

    def set_parameters(self, session_id: str, values: Mapping[str, ArrayLike], request_id: str = "") -> int:
        requests = set_requests(session_id, values, request_id)
        return self.stub.SetParameters(requests, timeout=TIMEOUT).step

    def raw(self, method: str) -> Any:
        """Returns the method without any codec: bytes in, bytes out."""
        return self.channel.unary_unary(f"/backwire_api.v1.GradientService/{method}")


def set_requests(
    session_id: str, values: Mapping[str, ArrayLike], request_id: str = ""
) -> Iterator[pb.SetParametersRequest]:
    """The stream of SetParameters: its head, the chunks, and the mark of its end."""
    yield pb.SetParametersRequest(session_id=session_id, request_id=request_id)
    for name, value in values.items():
        for chunk, data in chunk_stream.encode_chunks(name, np.asarray(value)):
            chunk.data = bytes(data)
            yield pb.SetParametersRequest(chunk=chunk)
    yield pb.SetParametersRequest(last=True)


@pytest.fixture
def serve() -> Iterator[Callable[..., Api]]:
    """Starts servers with settings of Limits and Capacity, and gives a client of each."""
    started: list[Api] = []
    known = {field.name for field in fields(Capacity)}

    def start(**settings: Any) -> Api:
        capacity = Capacity(**{name: settings.pop(name) for name in list(settings) if name in known})
        started.append(Api(Server("127.0.0.1:0", Limits(**settings), capacity)))
        return started[-1]

    yield start
    for api in started:
        api.channel.close()
        api.server.stop(5.0)


@pytest.fixture
def all_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are good as where all extras are installed."""
    monkeypatch.setattr("backwire_server.config.find_spec", lambda _: True)


@pytest.fixture
def api(serve: Callable[..., Api]) -> Api:
    return serve()


@pytest.fixture
def graph() -> Callable[..., graph_pb2.Graph]:
    return dot_graph


@pytest.fixture
def refused() -> Callable[[Callable[[], Any]], Refusal]:
    """Does a call that must fail, and returns what it told."""

    def attempt(call: Callable[[], Any]) -> Refusal:
        try:
            outcome = call()
        except grpc.RpcError as error:
            return Refusal(error)
        raise AssertionError(f"the call succeeded: {outcome}")

    return attempt


@pytest.fixture
def set_parameters_requests() -> Callable[..., Iterable[pb.SetParametersRequest]]:
    return set_requests


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], Any]], Any]:
    return until


class Conversation:
    """A Pipeline stream that is open: sends requests one by one, and collects answers."""

    def __init__(self, api: Api, **options: Any) -> None:
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        options.setdefault("timeout", TIMEOUT)
        self.call = api.stub.Pipeline(iter(self._outbox.get, None), **options)
        self._number = 0

    def send(self, number: int | None = None, **request: Any) -> int:
        """Sends a request and returns its id, by default the next."""
        self._number = self._number + 1 if number is None else number
        self._outbox.put(pb.PipelineRequest(id=self._number, **request))
        return self._number

    def chunks(self, name: str, array: ArrayLike, **changes: Any) -> None:
        """Sends an array as chunks of the request that is to come; `changes` are made to the last one."""
        chunks = [whole(head, data) for head, data in chunk_stream.encode_chunks(name, np.asarray(array))]
        for place, value in changes.items():
            setattr(chunks[-1], place, value)
        for chunk in chunks:
            self._outbox.put(pb.PipelineRequest(id=self._number + 1, chunk=chunk))

    def close(self) -> None:
        """Tells that nothing more will be sent."""
        self._outbox.put(None)

    def answer(self) -> pb.PipelineResponse:
        """Waits for the next message."""
        found: pb.PipelineResponse = next(self.call)
        return found

    def answers(self) -> list[pb.PipelineResponse]:
        """Ends the stream and returns all answers that are left."""
        self.close()
        return list(self.call)


def whole(head: tensor_pb2.TensorChunk, data: Any) -> tensor_pb2.TensorChunk:
    """The chunk with its data."""
    head.data = bytes(data)
    return head


@pytest.fixture
def converse() -> Iterator[Callable[..., Conversation]]:
    """Opens Pipeline streams, which end with the test."""
    opened: list[Conversation] = []

    def begin(api: Api, **options: Any) -> Conversation:
        opened.append(Conversation(api, **options))
        return opened[-1]

    yield begin
    for conversation in opened:
        conversation.close()
        conversation.call.cancel()


@pytest.fixture
def failure() -> Callable[[pb.PipelineResponse], tuple[str, int]]:
    """Returns the reason of an answer that tells of an error, and the id of the request that failed first, or 0."""

    def read(answer: pb.PipelineResponse) -> tuple[str, int]:
        assert answer.WhichOneof("kind") == "error", answer
        info = error_details_pb2.ErrorInfo()
        assert answer.error.details[0].Unpack(info)
        assert answer.error.code
        assert answer.error.message
        return info.reason, int(info.metadata["failed_id"] or 0)

    return read
