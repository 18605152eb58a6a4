"""The id of a session tells which replica keeps it, and another replica says so rather than that there is none."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sessions.conftest import dot_spec

from backwire_server.sessions.caller import Caller, Scope, tenant_of
from backwire_server.sessions.errors import SessionNotFound, WrongReplica
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.replicas import is_replica, replica_of
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.store.store import SessionStore

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?", fullmatch=True)


@pytest.fixture
def stores(request: pytest.FixtureRequest) -> Callable[[str], SessionStore]:
    """Makes stores of replicas of these names."""

    def make(replica: str) -> SessionStore:
        store = SessionStore(Limits(), Home(replica=replica))
        request.addfinalizer(store.close)
        return store

    return make


@given(replica=NAMES, tenant=NAMES, durable=st.booleans())
def test_an_id_tells_replica_and_tenant(replica: str, tenant: str, durable: bool) -> None:
    session_id = Home(replica=replica).new_id(durable=durable, tenant=tenant)
    assert (replica_of(session_id), tenant_of(session_id)) == (replica, tenant)
    assert replica_of(Home().new_id(durable=durable, tenant=tenant)) == ""


@pytest.mark.parametrize("name", ["a", "0", "backwire-0", "a--b", "a" * 24])
def test_names_are_those_that_a_pod_or_a_host_may_have(name: str) -> None:
    assert is_replica(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a.b", "a~b", "a_b", "ä", "a\n", "a" * 25])
def test_what_would_not_be_found_again_in_an_id_is_no_name(name: str) -> None:
    assert not is_replica(name)


def test_a_session_of_another_replica_is_told_to_be_there(stores: Callable[[str], SessionStore]) -> None:
    session_id = stores("a").create(UNBOUNDED, dot_spec()).session_id
    with pytest.raises(WrongReplica, match=r"'a'.*this is 'b'.*backwire-session-id") as caught:
        stores("b").get(session_id)
    assert caught.value.retry_after


@pytest.mark.parametrize("replica", ["", "a"])
def test_one_that_should_be_here_and_one_of_no_replica_are_told_not_to_exist(
    replica: str, stores: Callable[[str], SessionStore]
) -> None:
    store = stores(replica)
    for session_id in ("s_gone~a", "s_gone", "s_gone~", "s_gone~UP", "s_gone.b~b", "", "~"):
        with pytest.raises(SessionNotFound, match="create a new one"):
            store.get(session_id)


def test_a_session_of_another_tenant_does_not_exist_on_any_replica(stores: Callable[[str], SessionStore]) -> None:
    session_id = stores("a").create(UNBOUNDED, dot_spec()).session_id
    with pytest.raises(SessionNotFound):
        stores("b").get(session_id, Caller("", "other", Scope.WRITE))


def test_a_session_is_served_where_it_is_under_whatever_name_it_was_made(
    stores: Callable[[str], SessionStore],
) -> None:
    store = stores("a")
    session_id = store.create(UNBOUNDED, dot_spec()).session_id
    store._replica = "b"
    assert store.get(session_id).session_id == session_id
