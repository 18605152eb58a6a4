"""Calls go to the server that has the session, by what those say that do not have it."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

import grpc
import pytest
from tests.client.following import UNAVAILABLE, AwaitingCaller, Caller, Server

import backwire as bw
import backwire.aio
from backwire._errors import InvalidRequestError
from backwire._wire import _owners
from backwire._wire._owners import Owners


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    found = Server("one"), Server("other")
    yield found
    for each in found:
        each.stop()


@pytest.fixture(params=[Caller, AwaitingCaller])
def caller(servers: tuple[Server, Server], request: pytest.FixtureRequest) -> Iterator[Caller]:
    found = request.param(servers[0])
    yield found
    found.close()


def test_a_call_is_sent_on_at_once_and_those_after_it_go_straight(
    servers: tuple[Server, Server], caller: Caller
) -> None:
    one, other = servers
    one.owner = other.address
    assert [caller.unary(), caller.unary(), caller.stream()] == ["other"] * 3
    assert (one.calls, other.calls) == (1, 3)


@pytest.mark.parametrize("goes_straight", [False, True])
def test_a_call_that_ends_well_without_an_answer_has_failed(
    servers: tuple[Server, Server], caller: Caller, goes_straight: bool
) -> None:
    one, other = servers
    if goes_straight:
        one.owner = other.address
        caller.unary()
    one.mute = other.mute = True
    with pytest.raises(grpc.RpcError) as caught:
        caller.unary()
    assert caught.value.code() is UNAVAILABLE


def test_each_session_has_its_own_way(servers: tuple[Server, Server], caller: Caller) -> None:
    one, other = servers
    one.owner = other.address
    assert caller.unary("s") == "other"
    one.owner = None
    assert [caller.unary("t"), caller.unary("s")] == ["one", "other"]


@pytest.mark.parametrize("reset", [False, True])
def test_a_stream_ends_and_the_next_goes_straight(servers: tuple[Server, Server], caller: Caller, reset: bool) -> None:
    one, other = servers
    one.owner, one.reset = other.address, reset
    with pytest.raises(grpc.RpcError) as caught:
        caller.stream()
    assert caught.value.code() is (grpc.StatusCode.CANCELLED if reset else UNAVAILABLE)
    assert caller.stream() == "other"


def test_a_session_that_moves_back_is_followed(servers: tuple[Server, Server], caller: Caller) -> None:
    one, other = servers
    one.owner = other.address
    assert caller.unary() == "other"
    one.owner, other.owner = None, one.address
    assert [caller.unary(), caller.unary()] == ["one", "one"]


def test_servers_that_each_name_the_other_are_not_followed_in_a_circle(
    servers: tuple[Server, Server], caller: Caller
) -> None:
    one, other = servers
    one.owner, other.owner = other.address, one.address
    with pytest.raises(grpc.RpcError):
        caller.unary()
    assert (one.calls, other.calls) == (1, 1)


def test_calls_go_the_first_way_again_when_the_owner_is_gone(servers: tuple[Server, Server], caller: Caller) -> None:
    one, other = servers
    one.owner = other.address
    assert caller.unary() == "other"
    other.stop()
    with pytest.raises(grpc.RpcError) as caught:
        caller.unary()
    assert caught.value.code() is UNAVAILABLE
    with pytest.raises(grpc.RpcError):  # which says that the other still has it: that is not believed now
        caller.unary()
    one.owner = None
    assert caller.unary() == "one"


def test_a_call_is_made_where_no_thread_can_be_started_to_watch_over_it(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Thread.start

    def fails(thread: Thread) -> None:
        if thread.name == "backwire-waiting":
            raise RuntimeError("can't start new thread")
        start(thread)

    one, other = servers
    one.owner = other.address
    caller = Caller(one)
    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", fails)
        assert [caller.unary(), caller.unary(), caller.stream()] == ["other"] * 3
    caller.close()


@pytest.mark.parametrize("reason", ["OVERLOADED", "RECOVERING"])
def test_other_refusals_are_not_followed(servers: tuple[Server, Server], caller: Caller, reason: str) -> None:
    one, other = servers
    one.owner, one.reason = other.address, reason
    with pytest.raises(grpc.RpcError):
        caller.unary()
    assert other.calls == 0


@pytest.mark.parametrize(("reason", "left"), [("EXECUTOR_UNAVAILABLE", True), ("NO_LOSS", False)])
def test_an_owner_that_cannot_compute_a_session_is_left_for_the_first_server(
    servers: tuple[Server, Server], caller: Caller, reason: str, left: bool
) -> None:
    first, other = servers
    first.owner = other.address
    assert caller.unary() == "other"
    first.owner, other.owner = None, ""
    other.code, other.reason = grpc.StatusCode.FAILED_PRECONDITION, reason
    if left:
        assert caller.unary() == "one"
    else:
        with pytest.raises(grpc.RpcError):
            caller.unary()
    first.owner, first.code, first.reason = "", grpc.StatusCode.FAILED_PRECONDITION, reason
    with pytest.raises(grpc.RpcError):
        caller.unary()


def test_an_owner_that_may_not_be_called_is_not(servers: tuple[Server, Server]) -> None:
    def refuse(address: str) -> grpc.Channel:
        raise InvalidRequestError(f"a token would travel to {address} in clear text")

    one, other = servers
    one.owner = other.address
    caller = Caller(one, refuse)
    with pytest.raises(grpc.RpcError) as caught:
        caller.unary()
    assert caught.value.details() == "elsewhere"
    caller.close()


@pytest.mark.parametrize(
    ("target", "address", "opens"),
    [
        ("server.example:50051", "127.0.0.1:50052", False),
        ("server.example:50051", "unix:/tmp/other", False),
        ("server.example:50051", "other.example:50051", True),
        ("localhost:50051", "127.0.0.1:50052", True),
        ("localhost:50051", "other.example:50051", False),
    ],
)
def test_a_token_travels_neither_in_clear_text_nor_to_who_listens_on_this_machine_for_a_server_on_another(
    target: str, address: str, opens: bool
) -> None:
    tls = target != "localhost:50051"
    with bw.connect(target, token="secret", tls=tls) as client:
        owners: Owners[Any] = client._transport._channel.owners
        owners._follow("s", address)
        assert (owners.owner("s") == address) is opens

    async def followed() -> bool:
        async with bw.aio.connect(target, token="secret", tls=tls) as client:
            owners: Owners[Any] = client._transport._channel.owners
            owners._follow("s", address)
            return owners.owner("s") == address

    assert asyncio.run(followed()) is opens


def test_of_many_sessions_those_that_were_learnt_last_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_owners, "MOST_KNOWN", 3)
    owners = Owners("main", lambda address: address)
    for session in ("a", "b", "c", "a", "d"):
        owners._follow(session, "there")
    assert [owners.owner(session) for session in ("a", "b", "c", "d")] == ["there", "", "there", "there"]


@pytest.mark.parametrize("way", ["unary", "stream"])
def test_a_call_is_forwarded_where_the_owner_cannot_be_reached(
    servers: tuple[Server, Server], caller: Caller, way: str
) -> None:
    one, other = servers
    one.owner, one.forwards = other.address, True
    other.stop()
    call = getattr(caller, way)
    for _ in range(2):  # the first learns of the owner or is sent there, the second that it cannot be reached
        with suppress(grpc.RpcError):
            call()
    with suppress(grpc.RpcError):
        call()
    assert call() == "forwarded"


def test_a_call_that_could_not_be_forwarded_follows_again_to_whoever_takes_the_session(
    servers: tuple[Server, Server], caller: Caller
) -> None:
    one, other = servers
    one.owner, one.forwards, one.reaches = other.address, True, False
    other.stop()
    with suppress(grpc.RpcError):
        caller.unary()
    with pytest.raises(grpc.RpcError):
        caller.unary()
    assert not one.followed
    one.owner = None
    assert caller.unary() == "one"
    assert one.followed


def test_an_owner_that_is_reached_is_called_whether_others_forward_or_not(
    servers: tuple[Server, Server], caller: Caller
) -> None:
    one, other = servers
    one.owner, one.forwards = other.address, True
    assert [caller.unary(), caller.unary()] == ["other", "other"]
