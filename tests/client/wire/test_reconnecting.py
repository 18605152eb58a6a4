"""A call that waits for a server to come back goes on as soon as it is there, however long it would have waited."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import grpc
import pytest
from tests.client.fake_service import FakeService
from tests.ports import unused_port

import backwire as bw
from backwire._wire import _transport
from backwire._wire._health import health
from backwire_api.v1 import gradient_service_pb2_grpc as service_grpc

LONG = 90.0
SOON = 30.0
PATIENT = bw.Retry(initial=LONG, maximum=LONG, seconds=10 * LONG)
Train = Callable[["Server"], int]


class Server:
    """The service at an address that stays the same."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{unused_port()}"
        self.service = FakeService()
        self.reached = Future[None]()
        self.down = Future[None]()

    @contextmanager
    def up(self) -> Iterator[None]:
        server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        service_grpc.add_GradientServiceServicer_to_server(self.service, server)
        server.add_insecure_port(self.address)
        server.start()
        try:
            yield
        finally:
            server.stop(None).wait()


def graph() -> bw.Graph:
    return bw.graph(loss=bw.squared_error(bw.parameter("p", 1.0), 2.0))


def by_calls(server: Server) -> int:
    with bw.connect(server.address, timeout=LONG * 10, retry=PATIENT) as client:
        session = client.create_session(graph(), bw.SGD(0.1))
        server.reached.set_result(None)
        server.down.result(SOON)
        return session.step().step


def by_pipeline(server: Server) -> int:
    with bw.connect(server.address, timeout=LONG * 10, retry=PATIENT) as client:
        session = client.create_session(graph(), bw.SGD(0.1))
        server.reached.set_result(None)
        server.down.result(SOON)
        with session.pipeline() as pipe:
            return pipe.step().result(SOON).step


def by_asyncio(use: Callable[[bw.aio.Session], Awaitable[int]]) -> Train:
    async def train(server: Server) -> int:
        async with bw.aio.connect(server.address, timeout=LONG * 10, retry=PATIENT) as client:
            session = await client.create_session(graph(), bw.SGD(0.1))
            server.reached.set_result(None)
            await asyncio.wrap_future(server.down)
            return await use(session)

    return lambda server: asyncio.run(train(server))


async def step(session: bw.aio.Session) -> int:
    return (await session.step()).step


async def pipelined_step(session: bw.aio.Session) -> int:
    async with session.pipeline() as pipe:
        return (await (await pipe.step())).step


@pytest.mark.parametrize(
    "train",
    [
        pytest.param(by_calls, id="calls"),
        pytest.param(by_pipeline, id="pipeline"),
        pytest.param(by_asyncio(step), id="asyncio calls"),
        pytest.param(by_asyncio(pipelined_step), id="asyncio pipeline"),
    ],
)
def test_a_call_goes_on_as_soon_as_its_server_is_back(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    server, waits = Server(), Future[None]()

    def waiting() -> None:
        if not waits.done():
            waits.set_result(None)

    def longest_wait(_: float, longest: float) -> float:
        with suppress(RuntimeError):  # of threads, which wait in `health`
            asyncio.get_running_loop().call_soon(waiting)
        return longest

    def told_health(check: Any, *, timeout: float, wait_for_ready: bool = False) -> str:
        if wait_for_ready:  # nothing answered before
            waiting()
        return health(check, timeout=timeout, wait_for_ready=wait_for_ready)

    monkeypatch.setattr(random, "uniform", longest_wait)
    monkeypatch.setattr(_transport, "health", told_health)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        with server.up():
            trained = pool.submit(train, server)
            server.reached.result(SOON)
        server.down.set_result(None)
        waits.result(SOON)  # the call has failed, nothing is there, and it is to be sent again after a long time
        stack.enter_context(server.up())
        assert trained.result(SOON) == 1
