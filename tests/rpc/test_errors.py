"""Every error has one status and one reason on the wire, and every reason is told by a real server."""

import inspect
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.rpc.provoking import Provoke

from backwire_api import tensors
from backwire_api.reasons import Reason
from backwire_server.engine import errors as engine
from backwire_server.optim import OptimizerError
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


OF_WORKERS = {Reason.SESSION_LOST, Reason.NO_WORKER}
"""Told only where there are several processes: see tests/workers."""

OF_STREAMS = {Reason.DEPENDENCY_FAILED}
"""Told only in an answer on a Pipeline stream: see test_pipeline_errors.py."""

OF_FILES = {
    Reason.CHECKPOINT_NOT_FOUND,
    Reason.DISK_QUOTA_EXCEEDED,
    Reason.RECOVERING,
    Reason.SESSION_QUARANTINED,
    Reason.STORAGE_FAILED,
}
"""Told only where sessions are kept on disk: see tests/storage and tests/faults."""

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
