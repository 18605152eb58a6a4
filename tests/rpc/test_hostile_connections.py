"""A server in a process of its own goes on for others, in bounded memory, whatever is done to its connections."""

import contextlib
import operator
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tests.graphs import dot_graph
from tests.rpc import raw_http2
from tests.rpc.conftest import TIMEOUT, Refusal
from tests.rpc.hostile_served import Served
from tests.rpc.raw_http2 import DATA, END_HEADERS, GOAWAY, HEADERS, PING, SETTINGS, Connection, bomb, frame, message

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc

MiB = 1 << 20
MOST_GROWTH = 160 * MiB
"""What a storm may add to the resident memory of a process: gRPC's buffers of some thousand streams, and the heap."""


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def shared(request: pytest.FixtureRequest) -> Iterator[Served]:
    served = Served(request.param)
    yield served
    served.end()


@pytest.fixture
def served(shared: Served, until: Callable[[Callable[[], Any]], None]) -> Iterator[Served]:
    """The server, which afterwards is as it was: it answers calls of all kinds, and little memory is gone."""
    yield shared
    shared.serves()
    for call in (shared.train, shared.download, shared.converse):
        until(partial(accepted, call))
    assert shared.resident() - shared.before < MOST_GROWTH


def accepted(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError as error:
        if Refusal(error).reason not in ("OVERLOADED", "NO_WORKER"):
            raise
        return False
    return True


@contextlib.contextmanager
def crowd(served: Served, count: int) -> Iterator[list[Connection]]:
    """Opens many connections, and closes them."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Connection(served.address)) for _ in range(count)]


def told(call: Callable[[], Any]) -> Refusal:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Refusal(caught.value)


def test_messages_that_inflate_beyond_the_limit_are_refused_without_being_inflated(served: Served, until: Any) -> None:
    whole, left = bomb(256 * MiB), list(range(32))

    def all_were_given() -> bool:
        with Connection(served.address) as connection:
            with contextlib.suppress(ConnectionError):  # it acknowledges no ping, and may be ended for that
                for _ in left[:8]:
                    connection.give(connection.open("TrainStep", {"grpc-encoding": "gzip"}), whole, end=True)
                    left.pop()
            served.serves()
            assert served.resident() - served.before < MOST_GROWTH, "of 8 GiB in all"
        return not left

    until(all_were_given)


def test_a_compressed_message_beyond_the_limit_is_told_so(served: Served) -> None:
    call: Any = served.channel.unary_unary("/backwire_api.v1.GradientService/TrainStep")
    found = told(lambda: call(bytes(16 * MiB), compression=grpc.Compression.Gzip, timeout=TIMEOUT))
    assert found.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in found.message


@pytest.mark.parametrize(
    ("method", "count", "other"),
    [("Forward", 8, Served.train), ("SetParameters", 4, Served.download), ("Pipeline", 4, Served.converse)],
)
def test_calls_that_send_nothing_give_their_places_to_others(
    served: Served, until: Any, method: str, count: int, other: Callable[[Served], None]
) -> None:
    with Connection(served.address) as connection:
        for _ in range(10 * count):
            connection.open(method)
        served.serves()
        until(lambda: accepted(lambda: other(served)))


def test_an_upload_that_stops_gives_its_place_to_others(served: Served, until: Any) -> None:
    head = message(pb.SetParametersRequest(session_id=served.session).SerializeToString())
    with Connection(served.address) as connection:
        for _ in range(20):
            connection.give(connection.open("SetParameters"), head)
        served.serves()
        until(lambda: accepted(served.download))


def test_answers_that_are_not_read_give_their_places_to_others(served: Served, until: Any) -> None:
    data = message(pb.GetParametersRequest(session_id=served.session).SerializeToString())
    many = b"".join(
        message(
            pb.PipelineRequest(
                id=index, get_session=pb.GetSessionRequest(session_id=served.session)
            ).SerializeToString()
        )
        for index in range(1, 500)
    )
    with Connection(served.address, window=0) as connection:
        for _ in range(20):
            connection.give(connection.open("GetParameters"), data, end=True)
            connection.give(connection.open("Pipeline"), many[:2_000])
        served.serves()
        until(lambda: accepted(served.download))
        until(lambda: accepted(served.converse))


def test_bytes_that_come_one_by_one_hold_up_nobody(served: Served) -> None:
    call = frame(HEADERS, END_HEADERS, 1, raw_http2.headers("Forward")) + frame(DATA, 0, 1, message(bytes(500)))
    with crowd(served, 20) as connections:
        for place in range(len(call) // 2):
            for connection in connections:
                with contextlib.suppress(ConnectionError):  # it acknowledges no ping, and may be ended for that
                    connection.send(call[place : place + 1])
            if place % 50 == 0:
                served.serves()


def test_a_connection_without_a_sign_of_life_is_ended(served: Served) -> None:
    with Connection(served.address) as connection:
        connection.open("Pipeline")
        kinds = [kind for kind, *_ in connection.frames()]
    assert PING in kinds
    assert GOAWAY in kinds


def test_connections_beyond_the_limit_are_closed_and_others_served(served: Served, until: Any) -> None:
    def closed() -> int:
        with crowd(served, 150) as connections:
            found = [connection.until(SETTINGS) for connection in connections]
            served.serves()
        return found.count(None)

    until(lambda: closed() >= 90)  # fewer where so many take so long to open that the first have been ended

    def answered() -> bool:
        with Connection(served.address) as connection:
            return connection.until(SETTINGS) is not None

    until(answered)


def test_streams_that_are_opened_and_reset_at_once_hold_up_nobody(served: Served) -> None:
    numbers = iter(range(20_000))
    while operator.length_hint(numbers):
        # One that takes long is ended, as it acknowledges no ping, and the next goes on.
        with Connection(served.address) as connection, contextlib.suppress(ConnectionError):
            for number in numbers:
                connection.cancel(connection.open("Forward"))
                if number % 4_000 == 0:
                    served.health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    served.health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    assert served.resident() - served.before < MOST_GROWTH


def test_more_pings_than_are_allowed_end_the_connection_at_once(served: Served) -> None:
    with Connection(served.address) as connection:
        connection.send(frame(PING, 0, 0, bytes(8)) * 50)
        told = connection.until(GOAWAY)
    assert told is not None
    assert told[3].endswith(b"too_many_pings"), "and not for want of a sign of life"


def test_a_flood_of_pings_whose_answers_are_not_read_ends_the_connection(served: Served) -> None:
    with Connection(served.address) as connection:
        flood = frame(PING, 0, 0, bytes(8)) * 10_000
        with pytest.raises(OSError, match=r"pipe|reset"):
            connection.send(*[flood] * 1_000)


def test_a_storm_of_requests_leaves_a_session_alone(served: Served) -> None:
    """Every kind of call at full rate, of which most are refused; health and lookups are answered all the while."""
    storming = threading.Event()
    storming.set()

    def storm(seed: int) -> int:
        with grpc.insecure_channel(served.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub, answered = pb_grpc.GradientServiceStub(channel), 0
            while storming.is_set():
                made: Any = pb.CreateSessionRequest(graph=dot_graph(), request_id=f"storm-{seed}-{answered}")
                calls = [
                    stub.CreateSession.future(made, timeout=TIMEOUT),
                    stub.ListSessions.future(pb.ListSessionsRequest(page_size=1_000), timeout=TIMEOUT),
                    stub.TrainStep.future(pb.TrainStepRequest(session_id="nobody's"), timeout=TIMEOUT),
                ]
                for call in calls:
                    outcome: Any = call
                    answered += outcome.exception() is None
                made = calls[0]
                if made.exception() is None:
                    session_id = made.result().session.session_id
                    deleted: Any = pb.DeleteSessionRequest(session_id=session_id)
                    while not accepted(partial(stub.DeleteSession, deleted, timeout=TIMEOUT)):
                        pass
            return answered

    with ThreadPoolExecutor(8) as pool:
        storms = [pool.submit(storm, seed) for seed in range(8)]
        try:
            for _ in range(50):
                served.health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        finally:
            storming.clear()
        assert sum(each.result(TIMEOUT) for each in storms)
    assert served.look() == served.digest
