"""A call to a server that vanished without a word is given up once another says so, and a slow one never is."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from tests.client.following import AwaitingCaller, Caller, Server

from backwire._wire import _following, _in_flight, _waiting
from backwire._wire._in_flight import Entry, InFlight
from backwire._wire._owners import Owners
from backwire._wire._pipeline_messages import Answer, Request
from backwire._wire._waiting import Waiter, Waiting
from backwire.aio import _following as aio_following
from backwire_api.metadata import FOLLOWS_KEY, WAITS_KEY
from backwire_api.reasons import DOMAIN
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.wire import Framed

SECONDS = 20.0
SLOW = 0.125


class Knowing(Server):
    """A server that also tells whether others live: `told` is what it says of them; and it can be `silent`."""

    def __init__(self, name: str) -> None:
        self.told: dict[str, str] = {}
        self.questions: list[dict[str, Any]] = []
        self.asked, self.begun, self.goes_on = threading.Semaphore(0), threading.Event(), threading.Event()
        self.goes_on.set()
        super().__init__(name)
        methods: dict[str, Any] = {"GetSessionHistory": grpc.unary_unary_rpc_method_handler(self._tell)}
        handler = grpc.method_handlers_generic_handler("backwire_api.v1.GradientService", methods)
        self._server.add_generic_rpc_handlers((handler,))

    def silent(self) -> None:
        """Answers nothing from now on, until `goes_on` is set."""
        self.begun.clear()
        self.goes_on.clear()

    def _tell(self, request: bytes, context: Any) -> bytes:
        assert pb.GetSessionHistoryRequest.FromString(request).session_id == "s"
        self.questions.append(dict(context.invocation_metadata()))
        self.asked.release()
        info = error_details_pb2.ErrorInfo(reason="WRONG_REPLICA", domain=DOMAIN, metadata=self.told)
        status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
        status.details.add().Pack(info)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("an aborted call goes on")

    def _answer(self, context: Any) -> bytes:
        self.begun.set()
        self.goes_on.wait(SECONDS)
        return super()._answer(context)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has clients ask sooner than they would."""
    monkeypatch.setattr(_waiting, "SLOW_SECONDS", SLOW)
    for module in (_following, aio_following):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)


@pytest.fixture
def servers() -> Iterator[tuple[Knowing, Knowing]]:
    found = Knowing("one"), Knowing("other")
    yield found
    for each in found:
        each.goes_on.set()
        each.stop()


@pytest.fixture(params=[Caller, AwaitingCaller])
def caller(servers: tuple[Knowing, Knowing], request: pytest.FixtureRequest) -> Iterator[Caller]:
    found = request.param(servers[0])
    yield found
    found.close()


@pytest.fixture
def apart() -> Iterator[Callable[[Callable[[], str]], Future[str]]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


Apart = Callable[[Callable[[], str]], "Future[str]"]


@pytest.mark.parametrize("way", ["unary", "stream"])
def test_a_call_whose_server_is_gone_by_what_another_says_is_given_up_and_the_next_goes_where_that_says(
    servers: tuple[Knowing, Knowing], caller: Caller, apart: Apart, way: str
) -> None:
    one, other = servers
    one.owner = other.address
    assert caller.unary() == "other"
    one.owner, one.told = None, {"gone": other.address, "owner": one.address}
    other.silent()
    with pytest.raises(grpc.RpcError) as caught:
        apart(getattr(caller, way)).result(SECONDS)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # both are sent again
    assert one.questions[0][WAITS_KEY] == other.address
    assert FOLLOWS_KEY in one.questions[0]
    assert caller.unary() == "one"
    assert caller.channel.owners.owner("s") == one.address


@pytest.mark.parametrize("told", ["that it lives", "nothing", "of another"])
@pytest.mark.parametrize("way", ["unary", "stream"])
def test_a_call_that_takes_long_is_sent_once_and_waited_for(
    servers: tuple[Knowing, Knowing], caller: Caller, apart: Apart, way: str, told: str
) -> None:
    one, other = servers
    one.owner = other.address
    assert caller.unary() == "other"
    one.told = {"that it lives": {"owner": other.address}, "nothing": {}, "of another": {"gone": "other:1"}}[told]
    other.silent()
    answer = apart(getattr(caller, way))
    for _ in range(2):
        assert one.asked.acquire(timeout=SECONDS)
    assert not answer.done()
    other.goes_on.set()
    assert answer.result(SECONDS) == "other"
    assert (one.calls, other.calls) == (1, 2)


def test_nobody_is_asked_about_the_server_that_the_client_was_given(
    servers: tuple[Knowing, Knowing], caller: Caller, apart: Apart
) -> None:
    one, _ = servers
    one.silent()
    answer = apart(caller.unary)
    assert one.begun.wait(SECONDS)
    with suppress(TimeoutError):
        answer.result(4 * SLOW)
    assert not one.questions
    one.goes_on.set()
    assert answer.result(SECONDS) == "one"


def test_a_call_that_awaits_and_is_cancelled_by_its_task_is_cancelled_though_its_server_is_gone() -> None:
    async def cancelled() -> bool:
        waiter = Waiter("there", "s", ())
        watch = aio_following._Watch(Owners[Any](None, lambda _: None))

        async def wait() -> None:
            with watch.over(waiter):
                waiter.gone = True
                await asyncio.sleep(SECONDS)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await watch.close()
        return task.cancelled()

    assert asyncio.run(cancelled())


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_one_question_is_asked_at_a_time_of_all_in_turn_about_all_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(_waiting, "time", clock)
    owners = Owners("main", lambda address: address)
    for number, address in enumerate(("a", "b")):
        owners._follow(str(number), address)
    waiting = Waiting(owners)
    assert waiting.due() is None
    numbers = [waiting.add(Waiter(address, "s", ())) for address in ("a", "b")]
    clock.now += SLOW / 2
    assert waiting.due() is None
    asked = []
    for _ in range(4):
        clock.now += SLOW
        due = waiting.due()
        assert due is not None
        asked.append((due[0].address, due[1]))
        assert waiting.due() is None, "it was asked just now"
    assert asked == [("a", "main"), ("b", "main"), ("a", "b"), ("b", "a")]
    for number in numbers:
        waiting.remove(number)
    clock.now += SLOW
    assert waiting.due() is None
    assert not waiting


def test_a_stream_is_asked_for_only_while_what_it_was_sent_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, flight = Clock(), InFlight()
    for module in (_waiting, _in_flight):
        monkeypatch.setattr(module, "time", clock)
    waiter = Waiter("there", "s", (), lambda: flight.unanswered_since)
    clock.now += 10 * SLOW
    assert not waiter.is_slow(clock.now)
    entries = [Entry(number, Request("step", Framed(None), "nothing", None), [], None, Answer) for number in (1, 2)]
    for entry in entries:
        flight.add(entry)
        clock.now += SLOW / 2
    assert waiter.is_slow(clock.now)
    flight.done(entries[0], failed=False)
    assert not waiter.is_slow(clock.now), "the second waits since the first was answered"
    clock.now += SLOW
    assert waiter.is_slow(clock.now)
    flight.done(entries[1], failed=False)
    clock.now += SLOW
    assert not waiter.is_slow(clock.now)
