"""Every way in which a call can fail has its exception."""

import copy
import inspect
import pickle
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import backwire as bw
from backwire import _errors, _errors_service, _errors_session
from backwire._wire import _failures
from backwire_api.reasons import Reason

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService

RETRIED = ("SHUTTING_DOWN", "NO_WORKER", "RECOVERING", "WRONG_REPLICA", "STORAGE_FAILED")
CLASSES = [
    value
    for module in (_errors, _errors_session, _errors_service)
    for value in vars(module).values()
    if inspect.isclass(value) and issubclass(value, bw.BackwireError) and value is not bw.BackwireError
]


def test_every_reason_is_mapped() -> None:
    assert set(_failures.BY_REASON) == set(Reason)


def test_every_status_code_is_mapped() -> None:
    assert set(_failures.BY_CODE) == set(grpc.StatusCode)


def test_every_exception_is_public_and_drawn_in_the_tree() -> None:
    for kind in [*CLASSES, bw.BackwireError]:
        assert getattr(bw, kind.__name__) is kind
        assert kind.__name__ in (_errors.__doc__ or "")


@pytest.mark.parametrize("kind", CLASSES)
def test_exceptions_carry_a_code_and_survive_pickling(kind: type[bw.BackwireError]) -> None:
    error = kind("wrong; do otherwise", field="graph.nodes[3]", request_id="mine", retry_after=2.0)
    again = pickle.loads(pickle.dumps(copy.copy(error)))
    assert type(again) is kind
    assert str(again) == "wrong; do otherwise"
    assert (again.code, again.field, again.request_id, again.retry_after) == (error.code, "graph.nodes[3]", "mine", 2.0)
    assert again.code is not None


def test_exceptions_are_also_the_builtin_ones_that_fit() -> None:
    assert issubclass(bw.ShapeError, ValueError)
    assert issubclass(bw.SessionNotFoundError, LookupError)
    assert issubclass(bw.UnavailableError, ConnectionError)
    assert issubclass(bw.DeadlineExceededError, TimeoutError)


@pytest.mark.parametrize(
    "reason", [each for each in Reason if _failures.BY_REASON[each] is not bw.OverloadedError and each not in RETRIED]
)
def test_a_reason_becomes_its_exception(
    reason: Reason, session: bw.Session, service: "FakeService", refuse: Any
) -> None:
    service.before["Step"] = [refuse(grpc.StatusCode.FAILED_PRECONDITION, reason=reason)]
    with pytest.raises(_failures.BY_REASON[reason], match="refused; do otherwise") as caught:
        session.step(request_id="mine")
    assert type(caught.value) is _failures.BY_REASON[reason]
    assert caught.value.reason is reason
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.request_id == "mine"


BARE = [each for each in grpc.StatusCode if each.name not in ("OK", "UNAVAILABLE", "CANCELLED")]


@pytest.mark.parametrize("code", BARE)
def test_a_bare_status_code_becomes_its_exception(
    code: grpc.StatusCode, session: bw.Session, service: "FakeService"
) -> None:
    service.before["Step"] = [lambda context: context.abort(code, "no details")]
    with pytest.raises(_failures.BY_CODE[code], match="no details") as caught:
        session.step()
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("code", "told"),
    [("CANCELLED", "CANCELLED"), ("CANCELLED", "error code 8"), ("INTERNAL", "Received RST_STREAM with error code 2")],
)
def test_a_call_that_is_reset_on_its_way_is_sent_again(
    code: str, told: str, session: bw.Session, service: "FakeService"
) -> None:
    service.before["Step"] = [lambda context: context.abort(grpc.StatusCode[code], told)]
    assert session.step().step == 1
    assert len(service.requests["Step"]) == 2


@pytest.mark.parametrize(("code", "number"), [("CANCELLED", 8), ("INTERNAL", 2), ("UNAVAILABLE", 7)])
def test_a_refusal_that_came_whole_counts_though_a_proxy_reset_its_stream(
    session: bw.Session, service: "FakeService", code: str, number: int
) -> None:
    def refused(context: Any) -> None:
        status = status_pb2.Status(code=grpc.StatusCode.PERMISSION_DENIED.value[0], message="not you; ask for more")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="PERMISSION_DENIED", domain="backwire"))
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode[code], f"Stream removed (Received RST_STREAM with error code {number})")

    service.before["Step"] = [refused]
    with pytest.raises(bw.PermissionDeniedError, match="not you") as caught:
        session.step()
    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("kind", ["ErrorInfo", "BadRequest", "RetryInfo"])
def test_details_that_are_torn_leave_the_status_code(session: bw.Session, service: "FakeService", kind: str) -> None:
    def refused(context: Any) -> None:
        status = status_pb2.Status(code=grpc.StatusCode.PERMISSION_DENIED.value[0], message="not you")
        status.details.add(type_url=f"type.googleapis.com/google.rpc.{kind}", value=b"\x0a\x7f")
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")

    service.before["Step"] = [refused]
    with pytest.raises(bw.PermissionDeniedError, match="not you"):
        session.step()


def test_what_a_server_cancels_by_itself_is_told(session: bw.Session, service: "FakeService", refuse: Any) -> None:
    service.before["Step"] = [refuse(grpc.StatusCode.CANCELLED, reason="CANCELLED")]
    with pytest.raises(bw.CancelledError):
        session.step()


def test_details_become_attributes(session: bw.Session, service: "FakeService", refuse: Any) -> None:
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    service.before["Step"] = [refuse(exhausted, reason="TOO_MANY_SESSIONS", field="graph.nodes[3]", retry_after=1.5)]
    with pytest.raises(bw.ResourceExhaustedError) as caught:
        session.step()
    assert caught.value.reason is Reason.TOO_MANY_SESSIONS
    assert (caught.value.field, caught.value.retry_after) == ("graph.nodes[3]", 1.5)


def test_a_reason_of_a_newer_server_falls_back_to_the_code(
    session: bw.Session, service: "FakeService", refuse: Any
) -> None:
    service.before["Step"] = [refuse(grpc.StatusCode.NOT_FOUND, reason="MOON_NOT_FOUND")]
    with pytest.raises(bw.NotFoundError) as caught:
        session.step()
    assert caught.value.reason == "MOON_NOT_FOUND"


def test_the_reasons_of_other_domains_are_not_ours(session: bw.Session, service: "FakeService", refuse: Any) -> None:
    service.before["Step"] = [
        refuse(grpc.StatusCode.INVALID_ARGUMENT, reason="SHAPE_MISMATCH", domain="proxy.example.org")
    ]
    with pytest.raises(bw.InvalidRequestError) as caught:
        session.step()
    assert type(caught.value) is bw.InvalidRequestError


def test_details_that_cannot_be_read_leave_the_code(session: bw.Session, service: "FakeService") -> None:
    def garbage(context: Any) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    service.before["Step"] = [garbage]
    with pytest.raises(bw.NotFoundError, match="gone"):
        session.step()
