"""Every error has one status and one reason on the wire, and every reason is told by a real server."""

import inspect
import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

from backwire_api import tensors
from backwire_api.reasons import Reason
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, optimizer_pb2, tensor_pb2
from backwire_server.engine import errors as engine
from backwire_server.optim import OptimizerError
from backwire_server.rpc.admission import STREAMS
from backwire_server.rpc.errors import INTERNAL_MESSAGE, TABLE, status_of
from backwire_server.sessions import errors as sessions

Code = grpc.StatusCode
ABSTRACT = {sessions.SessionError, sessions.FailedPrecondition, sessions.LimitExceeded}


def classes(module: Any) -> set[type[Exception]]:
    found = (each for _, each in inspect.getmembers(module, inspect.isclass))
    return {each for each in found if issubclass(each, Exception) and each.__module__ == module.__name__}


def test_every_error_of_the_domain_is_in_the_table() -> None:
    expected = {*classes(engine), *classes(sessions), OptimizerError, tensors.TensorError} - ABSTRACT
    assert set(TABLE) == expected


def test_every_reason_is_in_the_table() -> None:
    assert {reason for _, reason in TABLE.values()} | {Reason.INTERNAL} == set(Reason)


def test_equal_reasons_have_equal_codes() -> None:
    assert len({*TABLE.values()}) == len({reason for _, reason in TABLE.values()})


def detail(status: Any, kind: type[Any]) -> Any:
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    return None


@pytest.mark.parametrize("owner", ["", "10.0.0.7:50051"])
def test_a_replica_that_is_wrong_tells_where_the_owner_is_called_if_that_is_known(owner: str) -> None:
    status, _ = status_of(sessions.WrongReplica("elsewhere", retry_after=0.1, owner=owner))
    told = detail(status, error_details_pb2.ErrorInfo)
    assert (told.reason, dict(told.metadata)) == ("WRONG_REPLICA", {"owner": owner} if owner else {})


def test_details_say_where_when_and_which_limit() -> None:
    status, reason = status_of(sessions.Overloaded("busy", field="a.b", retry_after=0.25, quota="max_things"))
    assert (status.code, status.message, reason) == (Code.RESOURCE_EXHAUSTED.value[0], "busy", Reason.OVERLOADED)
    assert detail(status, error_details_pb2.ErrorInfo).reason == "OVERLOADED"
    assert detail(status, error_details_pb2.BadRequest).field_violations[0].field == "a.b"
    assert detail(status, error_details_pb2.RetryInfo).retry_delay.nanos == 250_000_000
    assert detail(status, error_details_pb2.QuotaFailure).violations[0].subject == "max_things"


def test_an_error_nobody_foresaw_is_logged_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    status, reason = status_of(KeyError("a secret"))
    assert (status.code, status.message, reason) == (Code.INTERNAL.value[0], INTERNAL_MESSAGE, Reason.INTERNAL)
    assert b"secret" not in status.SerializeToString()
    assert "a secret" in caplog.text


def test_missing_memory_is_told_as_such() -> None:
    assert status_of(MemoryError())[1] is Reason.OUT_OF_MEMORY


@pytest.mark.parametrize("letter", ["a", "é", "漢", "😀", "\n"])
def test_a_status_fits_the_metadata_of_any_client(letter: str) -> None:
    status, _ = status_of(sessions.GraphTooLarge(letter * 100_000, field=letter * 100_000, quota="max_graph_nodes"))
    percent_encoded = 3 * len(status.message.encode())
    base64 = status.ByteSize() * 4 // 3
    assert percent_encoded + base64 < 8_000
    assert status.message.startswith(letter)


class Provoke:
    """Makes a real server refuse a call, for each reason."""

    def __init__(self, serve: Callable[..., Any], graph: Callable[..., graph_pb2.Graph], requests: Any) -> None:
        self.serve, self.graph, self.requests = serve, graph, requests

    def api(self, **settings: Any) -> tuple[Any, str]:
        api = self.serve(**settings)
        return api, api.create()

    def create(self, **changes: Any) -> Any:
        return self.serve().create(self.graph(**changes))

    def nodes(self, *nodes: graph_pb2.Node) -> Any:
        return self.create(nodes=[*self.graph().nodes, *nodes])

    def session_not_found(self) -> Any:
        return self.serve().info("nope")

    def pass_not_found(self) -> Any:
        api, session = self.api()
        return api.backward(session, "nope")

    def pass_exists(self) -> Any:
        api, session = self.api()
        api.forward(session, forward_id="p")
        return api.forward(session, forward_id="p")

    def invalid_graph(self) -> Any:
        return self.nodes(graph_pb2.Node(op="Add", inputs=["x", "nope"], outputs=["z"]))

    def cyclic_graph(self) -> Any:
        return self.nodes(
            graph_pb2.Node(op="Add", inputs=["x", "b"], outputs=["a"]),
            graph_pb2.Node(op="Add", inputs=["x", "a"], outputs=["b"]),
        )

    def unknown_op(self) -> Any:
        return self.nodes(graph_pb2.Node(op="Nope", inputs=["x"], outputs=["z"]))

    def unsupported_opset(self) -> Any:
        return self.create(opset_version=1)

    def invalid_attribute(self) -> Any:
        extra = {"nope": graph_pb2.Attribute(integer=1)}
        return self.nodes(graph_pb2.Node(op="Add", inputs=["x", "x"], outputs=["z"], attributes=extra))

    def not_differentiable(self) -> Any:
        api = self.serve()
        whole = graph_pb2.Input(name="n", dtype=tensor_pb2.DATA_TYPE_INT64)
        session = api.create(self.graph(inputs=[*self.graph().inputs, whole]))
        return api.backward(session, api.forward(session).forward_id, wrt=["n"])

    def invalid_tensor(self) -> Any:
        api, session = self.api()
        broken = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[3], data=b"short")
        return api.stub.Forward(pb.ForwardRequest(session_id=session, inputs={"x": broken}))

    def shape_mismatch(self) -> Any:
        api, session = self.api()
        return api.forward(session, np.ones(4))

    def dtype_mismatch(self) -> Any:
        api, session = self.api()
        return api.forward(session, np.ones(3, np.float32))

    def missing_input(self) -> Any:
        api, session = self.api()
        return api.stub.Forward(pb.ForwardRequest(session_id=session))

    def unknown_input(self) -> Any:
        api, session = self.api()
        inputs = {name: tensors.encode(np.ones(3)) for name in ("x", "nope")}
        return api.stub.Forward(pb.ForwardRequest(session_id=session, inputs=inputs))

    def unknown_output(self) -> Any:
        api, session = self.api()
        return api.forward(session, outputs=["nope"])

    def unknown_parameter(self) -> Any:
        api, session = self.api()
        return api.parameters(session, "nope")

    def invalid_value(self) -> Any:
        table = graph_pb2.Parameter(name="table", value=tensors.encode(np.ones((2, 2))))
        shape = [graph_pb2.Dimension(symbol="n")]
        lookup = graph_pb2.Graph(
            inputs=[graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_INT64, shape=shape)],
            parameters=[table],
            nodes=[graph_pb2.Node(op="Gather", inputs=["table", "x"], outputs=["rows"])],
            outputs={"rows": "rows"},
        )
        api = self.serve()
        return api.forward(api.create(lookup), np.array([0, 7]), mode=pb.MODE_EVAL)

    def invalid_optimizer(self) -> Any:
        return self.serve().create(optimizer=optimizer_pb2.Optimizer(learning_rate=-1, sgd=optimizer_pb2.Sgd()))

    def invalid_argument(self) -> Any:
        api, session = self.api()
        return api.forward(session, request_id="r" * 129)

    def invalid_page_token(self) -> Any:
        return self.serve().stub.ListSessions(pb.ListSessionsRequest(page_token="nope"))

    def request_id_reused(self) -> Any:
        api, session = self.api()
        api.train(session, request_id="r")
        return api.train(session, np.ones(3), request_id="r")

    def pass_expired(self) -> Any:
        api, session = self.api(max_passes=1)
        name = api.forward(session).forward_id
        api.forward(session)
        return api.backward(session, name)

    def no_gradients(self) -> Any:
        api, session = self.api()
        return api.step(session)

    def no_optimizer(self) -> Any:
        api = self.serve()
        return api.step(api.create(optimizer=None))

    def no_loss(self) -> Any:
        api = self.serve()
        session = api.create(self.graph(loss=""))
        return api.backward(session, api.forward(session).forward_id)

    def non_finite_gradient(self) -> Any:
        api, session = self.api()
        return api.train(session, np.array([1, np.nan, 1]))

    def result_not_retained(self) -> Any:
        api = self.serve()
        shape = [graph_pb2.Dimension(symbol="n")]
        whole = graph_pb2.Graph(
            inputs=[graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape)], outputs={"x": "x"}
        )
        session = api.create(whole)
        large = np.zeros((16 << 20) + 1, np.float32)
        api.forward(session, large, request_id="r")
        return api.forward(session, large, request_id="r")

    def step_mismatch(self) -> Any:
        api, session = self.api()
        return api.train(session, options=pb.StepOptions(expected_step=1))

    def not_splittable(self) -> Any:
        return self.serve().create(data_parallel=2)

    def stale_pass(self) -> Any:
        api = self.serve()
        session = api.create(max_staleness=0)
        name = api.forward(session).forward_id
        api.train(session)
        return api.backward(session, name)

    def invalid_export(self) -> Any:
        return self.serve().stub.ImportSession(iter([pb.ImportSessionRequest(chunk=pb.FileChunk(data=b"half"))]))

    def not_durable(self) -> Any:
        api, session = self.api()
        return api.stub.SaveCheckpoint(pb.SaveCheckpointRequest(session_id=session, name="n"))

    def lease_held(self) -> Any:
        api, session = self.api()
        request = pb.AttachSessionRequest(session_id=session, holder="me")
        api.stub.AttachSession(request)
        return api.stub.AttachSession(request)

    def writer_fenced(self) -> Any:
        api, session = self.api()
        api.stub.AttachSession(pb.AttachSessionRequest(session_id=session, holder="me"))
        return api.train(session)

    def graph_too_large(self) -> Any:
        return self.serve(max_graph_nodes=2).create()

    def pass_too_large(self) -> Any:
        api, session = self.api(max_pass_bytes=10)
        return api.forward(session)

    def message_too_large(self) -> Any:
        api = self.serve(max_message_bytes=10_000)
        many = {f"y{number}": "y" for number in range(20)}
        return api.forward(api.create(self.graph(outputs=many)))

    def call_too_large(self) -> Any:
        api, session = self.api(max_call_flops=5)
        return api.train(session)

    def too_many_sessions(self) -> Any:
        api, _ = self.api(max_sessions=1)
        return api.create()

    def out_of_memory(self) -> Any:
        return self.serve(max_total_bytes=10).create()

    def overloaded(self) -> Any:
        api, session = self.api(max_concurrent_streams=1)
        release = threading.Event()

        def requests() -> Any:
            yield from self.requests(session, {})
            release.wait(20)

        upload = api.stub.SetParameters.future(requests())
        try:
            while not api.server.admission._in_progress[STREAMS]:
                assert not upload.done()
            return api.parameters(session)
        finally:
            release.set()
            upload.result(20)

    def shutting_down(self) -> Any:
        api, session = self.api()
        api.server.admission.drain(0)
        return api.info(session)

    def internal(self) -> Any:
        api, session = self.api()
        api.server._store._register._sessions[session] = 0, object()
        return api.info(session)


OF_WORKERS = {Reason.SESSION_LOST, Reason.NO_WORKER}
"""Told only where there are several processes: see tests/workers."""

OF_STREAMS = {Reason.DEPENDENCY_FAILED}
"""Told only in an answer on a Pipeline stream: see test_pipeline.py."""

OF_FILES = {
    Reason.CHECKPOINT_NOT_FOUND,
    Reason.DISK_QUOTA_EXCEEDED,
    Reason.RECOVERING,
    Reason.SESSION_QUARANTINED,
    Reason.STORAGE_FAILED,
}
"""Told only where sessions are kept on disk: see tests/storage, tests/e2e/test_sdk_durability.py and tests/faults."""

OF_TOKENS = {Reason.UNAUTHENTICATED, Reason.PERMISSION_DENIED}
"""Told only where callers need a token: see test_tenants.py."""

OF_REPLICAS = {Reason.WRONG_REPLICA}
"""Told only by one of several servers behind one address: see test_replicas.py."""

OF_EXECUTORS = {Reason.EXECUTOR_UNAVAILABLE}
"""Told only by a server that lacks an extra: see test_executors.py."""

ELSEWHERE = OF_WORKERS | OF_STREAMS | OF_FILES | OF_TOKENS | OF_REPLICAS | OF_EXECUTORS
TOLD = sorted({*Reason} - {Reason.CANCELLED, Reason.DEADLINE_EXCEEDED} - ELSEWHERE)
FIELDS = {
    "SESSION_NOT_FOUND": "session_id",
    "PASS_NOT_FOUND": "forward_id",
    "PASS_EXPIRED": "forward_id",
    "NOT_SPLITTABLE": "graph.inputs",
    "PASS_EXISTS": "forward_id",
    "STALE_PASS": "forward_id",
    "INVALID_GRAPH": "graph.nodes[3].inputs",
    "UNSUPPORTED_OPSET": "graph.opset_version",
    "INVALID_TENSOR": "inputs[x]",
    "SHAPE_MISMATCH": "inputs[x]",
    "DTYPE_MISMATCH": "inputs[x]",
    "UNKNOWN_INPUT": "inputs[nope]",
    "UNKNOWN_OUTPUT": "outputs",
    "UNKNOWN_PARAMETER": "names[0]",
    "INVALID_OPTIMIZER": "optimizer.learning_rate",
    "INVALID_ARGUMENT": "request_id",
    "STEP_MISMATCH": "options.expected_step",
    "NON_FINITE_GRADIENT": "parameters[w]",
}
QUOTAS = {
    "GRAPH_TOO_LARGE": "max_graph_nodes",
    "PASS_TOO_LARGE": "max_pass_bytes",
    "MESSAGE_TOO_LARGE": "max_message_bytes",
    "CALL_TOO_LARGE": "max_call_flops",
    "TOO_MANY_SESSIONS": "max_sessions",
    "OUT_OF_MEMORY": "max_total_bytes",
    "OVERLOADED": "max_concurrent_streams",
}


@pytest.mark.parametrize("reason", TOLD)
def test_a_real_server_tells(
    reason: Reason, serve: Any, graph: Any, set_parameters_requests: Any, refused: Any
) -> None:
    provoke = Provoke(serve, graph, set_parameters_requests)
    told = refused(getattr(provoke, reason.lower()))
    assert told.reason == reason, told.message
    assert told.code is next((code for code, each in TABLE.values() if each is reason), Code.INTERNAL)
    assert told.field == FIELDS.get(reason, told.field)
    assert told.quota == QUOTAS.get(reason, "")
    assert (told.retry_after is not None) == (reason in (Reason.OVERLOADED, Reason.SHUTTING_DOWN, Reason.LEASE_HELD))
