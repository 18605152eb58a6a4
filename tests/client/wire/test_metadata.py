"""What calls say in their metadata, by which load balancers send them to the right replica."""

import io
from typing import TYPE_CHECKING, Any

import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService

SESSION, REQUEST = "backwire-session-id", "backwire-request-id"


def said(service: "FakeService", key: str) -> list[str | None]:
    """What each call said under a key."""
    return [each.get(key) for each in service.metadata]


def test_every_call_on_a_session_names_it(client: bw.Client, session: bw.Session, service: "FakeService") -> None:
    service.metadata.clear()
    session.forward({"x": [[1, 2]]}).backward()
    session.step()
    session.train_step({"x": [[1, 2]]})
    session.parameters()
    session.set_parameters({"b": [7, 8]})
    session.gradients()
    session.zero_gradients()
    session.info()
    session.digest()
    session.check_gradients({"x": [[1, 2]], "labels": [0]})
    with session.attach():
        client.session(session.id).info()
    session.close()
    assert len(service.metadata) == 16
    assert set(said(service, SESSION)) == {session.id}


def test_a_stream_names_the_session_when_it_is_opened(session: bw.Session, service: "FakeService") -> None:
    opened: list[dict[str, str]] = []

    def stream(_: Any, context: Any) -> Any:
        opened.append(dict(context.invocation_metadata()))
        return iter(())

    service.streams.append(stream)
    with session.pipeline() as pipe:
        pipe.train_step({"x": [[1, 2]]})
    assert [each[SESSION] for each in opened] == [session.id]


def test_what_makes_a_session_names_the_request_instead(client: bw.Client, service: "FakeService") -> None:
    loss = bw.squared_error(bw.parameter("p", 1.0), 2.0)
    session = client.create_session(loss, request_id="made-once")
    branch = session.fork(request_id="branched")
    branch.info()
    assert said(service, REQUEST) == ["made-once", None, None]
    assert said(service, SESSION) == [None, session.id, branch.id]


def test_an_import_names_the_request(client: bw.Client, session: bw.Session, service: "FakeService") -> None:
    file = io.BytesIO()
    session.export(file)
    file.seek(0)
    service.metadata.clear()
    client.import_session(file, request_id="moved")
    assert (said(service, SESSION)[0], said(service, REQUEST)[0]) == (None, "moved")


@pytest.mark.parametrize("name", ["größe", "two\nlines", "n" * 129])
def test_a_name_that_metadata_cannot_have_is_left_out(client: bw.Client, service: "FakeService", name: str) -> None:
    client.create_session(bw.squared_error(bw.parameter("p", 1.0), 2.0), request_id=name)
    with pytest.raises(bw.SessionNotFoundError):
        client.session(name)
    assert said(service, REQUEST) == [None]


def test_other_calls_name_nothing(client: bw.Client, session: bw.Session, service: "FakeService") -> None:
    service.metadata.clear()
    assert [each.id for each in client.sessions()] == [session.id]
    client.ops()
    assert all(SESSION not in each and REQUEST not in each for each in service.metadata)


def test_closing_a_client_closes_its_sessions_too(client: bw.Client, session: bw.Session) -> None:
    client.close()
    with pytest.raises(bw.ClientClosedError):
        session.info()
