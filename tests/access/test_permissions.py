"""Each method needs the scope that what it does calls for."""

import itertools

import pytest

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.access.permissions import LEAST, check
from backwire_server.sessions.caller import Caller, Scope
from backwire_server.sessions.errors import PermissionDenied

METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["GradientService"].methods]
LOOKING = {
    "GetSession",
    "ListSessions",
    "GetParameters",
    "GetGradients",
    "DescribeGraph",
    "ListOps",
    "GetStatus",
    "GetSessionHistory",
    "ListCheckpoints",
    "CheckGradients",
    "DescribeSession",
    "ExportSession",
    "Forward",
    "Pipeline",
}


def caller(scope: Scope) -> Caller:
    return Caller("one", "acme", scope)


def test_every_method_of_the_contract_is_in_the_table() -> None:
    assert set(LEAST) == set(METHODS)


def test_who_may_read_may_look_and_evaluate_and_nothing_else() -> None:
    allowed = set()
    for method in METHODS:
        try:
            check(caller(Scope.READ), method)
        except PermissionDenied:
            continue
        allowed.add(method)
    assert allowed == LOOKING


@pytest.mark.parametrize("scope", [Scope.WRITE, Scope.ADMIN])
def test_who_may_write_may_use_every_method(scope: Scope) -> None:
    for method, training in itertools.product(METHODS, (False, True)):
        check(caller(scope), method, training)


@pytest.mark.parametrize("method", ["Forward", "Pipeline"])
def test_training_needs_write(method: str) -> None:
    check(caller(Scope.READ), method)
    with pytest.raises(PermissionDenied, match=f"{method} that changes a session needs the scope 'write'.* 'read'"):
        check(caller(Scope.READ), method, training=True)


def test_the_refusal_names_method_and_scopes() -> None:
    with pytest.raises(PermissionDenied, match="Step needs the scope 'write', and the token has 'read'; use a token"):
        check(caller(Scope.READ), "Step")


def test_a_method_that_nobody_thought_of_is_for_admins() -> None:
    check(caller(Scope.ADMIN), "Unheard")
    with pytest.raises(PermissionDenied, match="Unheard needs the scope 'admin'"):
        check(caller(Scope.WRITE), "Unheard")
