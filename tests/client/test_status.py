"""What the SDK makes of how a server and its sessions say they are doing."""

import dataclasses
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as service_pb2

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService

BEGIN = 1_700_000_000


def answer(seconds: float, *sessions: service_pb2.SessionStatus) -> service_pb2.GetStatusResponse:
    message = service_pb2.GetStatusResponse(
        version="7", workers=2, session_count=9, awake_count=8, session_bytes=3, sessions=sessions
    )
    message.start_time.FromSeconds(BEGIN)
    message.time.FromNanoseconds(int((BEGIN + seconds) * 1e9))
    return message


def told(name: str, steps: int, **fields: object) -> service_pb2.SessionStatus:
    message = service_pb2.SessionStatus(session_id=name, steps=steps, **fields)  # type: ignore[arg-type]
    message.last_use_time.FromSeconds(BEGIN + 1)
    return message


def test_a_status_is_plain_data(client: bw.Client, service: "FakeService") -> None:
    response = answer(60, told("a", 5, tenant="acme", state=service_pb2.SESSION_STATE_ASLEEP, step=4, loss=math.inf))
    response.load.calls.used, response.load.calls.limit = 1, 64
    response.load.recovering = 3
    service.statuses.append(response)
    status = client.status(max_sessions=5)
    assert service.requests["GetStatus"][0].max_sessions == 5
    assert (status.version, status.workers, status.session_count, status.awake_count, status.nbytes) == (
        "7",
        2,
        9,
        8,
        3,
    )
    assert status.started == datetime.fromtimestamp(BEGIN, UTC)
    assert (status.time - status.started).total_seconds() == 60
    assert status.load is not None
    assert (status.load.calls, status.load.recovering) == (bw.Usage(1, 64), 3)
    (session,) = status.sessions
    assert (session.id, session.tenant, session.state, session.step) == ("a", "acme", "asleep", 4)
    assert (session.loss, session.gradient_norm, session.learning_rate) == (math.inf, None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.step = 5  # type: ignore[misc]


def test_load_is_none_where_it_is_not_told_and_a_new_state_is_unknown(
    client: bw.Client, service: "FakeService"
) -> None:
    service.statuses.append(answer(0, told("a", 0, state=99)))
    status = client.status()
    assert status.load is None
    assert status.sessions[0].state == "unknown"


def test_rates_are_steps_over_the_servers_own_time(client: bw.Client, service: "FakeService") -> None:
    service.statuses += [
        answer(0, told("a", 10), told("idle", 3), told("restarted", 50), told("gone", 1)),
        answer(4, told("a", 20), told("idle", 3), told("restarted", 2), told("new", 1_000)),
    ]
    before, now = client.status(), client.status()
    assert now.rates(before) == {"a": 2.5, "idle": 0.0}
    assert now.rates(now) == {}
    assert before.rates(now) == {}


def test_a_history_goes_on_from_its_cursor(client: bw.Client, service: "FakeService") -> None:
    response = service_pb2.GetSessionHistoryResponse(next_cursor="c", session=told("a", 2))
    response.steps.add(step=1, gradient_norm=0.5, learning_rate=0.1)
    response.steps.add(step=2, loss=math.nan, gradient_norm=0.5).time.FromSeconds(BEGIN)
    service.histories += [response, service_pb2.GetSessionHistoryResponse(next_cursor="c")]
    found = client.history("a")
    assert client.history("a", cursor=found.cursor).steps == ()
    assert [(each.session_id, each.cursor) for each in service.requests["GetSessionHistory"]] == [("a", ""), ("a", "c")]
    first, second = found.steps
    assert first == bw.StepRecord(1, None, 0.5, 0.1, datetime.fromtimestamp(0, UTC))
    assert second.loss is not None
    assert math.isnan(second.loss)
    assert (second.time, found.session.steps) == (datetime.fromtimestamp(BEGIN, UTC), 2)


def test_the_history_of_a_session_that_is_not_there_is_refused(client: bw.Client) -> None:
    with pytest.raises(bw.SessionNotFoundError):
        client.history("none")
