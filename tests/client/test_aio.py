"""The asyncio client has the names of the other, and behaves as it does when calls fail."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

import backwire as bw

X = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
def run(target: str) -> Callable[[Callable[[bw.aio.Session], Awaitable[Any]]], Any]:
    """Runs a coroutine function with a session of the service."""

    async def started(use: Callable[[bw.aio.Session], Awaitable[Any]]) -> Any:
        retry = bw.Retry(attempts=4, initial=0.01)
        async with bw.aio.connect(target, timeout=10, retry=retry, token="secret") as client:
            x, w = bw.input("x", ("batch", 2)), bw.parameter("w", [[1.0, 2.0], [3.0, 4.0]])
            y = x @ w
            return await use(await client.create_session(bw.graph(loss=bw.mean(y), outputs={"y": y}), bw.SGD(0.1)))

    return lambda use: asyncio.run(started(use))


def test_calls_carry_what_those_of_the_other_client_do(run: Any, service: Any) -> None:
    async def use(session: bw.aio.Session) -> None:
        forward = await session.forward(X)
        assert forward.outputs["y"].tolist() == [[2, 2]]
        assert (await forward.backward({"y": [[1, 2]]}, wrt=["x"]))["x"].tolist() == [[1, 2]]
        assert (await session.step()).step == 1

    run(use)
    assert {each["authorization"] for each in service.metadata} == {"Bearer secret"}
    assert service.metadata[-1]["backwire-session-id"] == service.requests["Step"][0].session_id


def test_a_call_whose_answer_was_lost_is_repeated_and_applied_once(run: Any, service: Any) -> None:
    service.after["Step"].append(service.refuse(grpc.StatusCode.UNAVAILABLE))
    assert run(lambda session: session.step()).step == 1
    first, second = service.requests["Step"]
    assert first.request_id == second.request_id


def test_errors_are_those_of_the_other_client(run: Any, service: Any) -> None:
    refused = service.refuse(grpc.StatusCode.FAILED_PRECONDITION, reason="NO_GRADIENTS")
    service.before["Step"].append(refused)
    with pytest.raises(bw.NoGradientsError):
        run(lambda session: session.step())
    with pytest.raises(bw.UnknownNameError):
        run(lambda session: session.forward({"z": 1}))


def test_parameters_come_and_go_in_parts(run: Any) -> None:
    async def use(session: bw.aio.Session) -> Any:
        await session.set_parameters({"w": [[9, 8], [7, 6]]})
        return (await session.parameters())["w"].tolist()

    assert run(use) == [[9, 8], [7, 6]]


def test_a_download_that_fails_raises_its_error(run: Any, service: Any) -> None:
    service.before["GetParameters"].append(service.refuse(grpc.StatusCode.NOT_FOUND, reason="SESSION_NOT_FOUND"))
    with pytest.raises(bw.SessionNotFoundError):
        run(lambda session: session.parameters())


def test_a_stream_that_breaks_is_replaced(run: Any, service: Any) -> None:
    def breaks(requests: Any, context: Any) -> Any:
        yield service.answered(next(requests), context)
        service.answered(next(requests), context)
        service.refuse(grpc.StatusCode.UNAVAILABLE)(context)

    service.streams += [breaks, breaks]

    async def use(session: bw.aio.Session) -> list[int]:
        async with session.pipeline() as pipe:
            futures = [await pipe.train_step(X) for _ in range(5)]
        return [(await future).step for future in futures]

    assert run(use) == [1, 2, 3, 4, 5]


def test_a_pipeline_that_fails_tells_every_future_its_request_id(run: Any, service: Any) -> None:
    sent = threading.Event()

    def breaks(requests: Any, context: Any) -> Any:
        assert sent.wait(20)  # a pipeline that has failed takes nothing more
        next(requests)
        service.refuse(grpc.StatusCode.UNAVAILABLE)(context)
        yield

    service.streams += [breaks] * 4

    async def use(session: bw.aio.Session) -> None:
        pipe = session.pipeline()
        futures = [await pipe.train_step(X) for _ in range(3)]
        sent.set()
        for future in futures:
            assert str(future.request_id) in str(await future.exception())
        with pytest.raises(bw.UnavailableError):
            await pipe.step()
        await pipe.close()

    run(use)


def test_an_error_that_nobody_asked_for_is_raised_at_the_end(run: Any, service: Any) -> None:
    service.before["Step"].append(service.refuse(grpc.StatusCode.FAILED_PRECONDITION, reason="NO_GRADIENTS"))

    def stream(requests: Any, context: Any) -> Any:
        next(requests)
        service.refuse(grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_ARGUMENT")(context)
        yield

    service.streams.append(stream)

    async def use(session: bw.aio.Session) -> None:
        async with session.pipeline() as pipe:
            await pipe.step()

    with pytest.raises(bw.InvalidRequestError):
        run(use)


def test_at_most_depth_requests_are_in_flight(run: Any, service: Any) -> None:
    most: list[int] = []

    async def use(session: bw.aio.Session) -> None:
        async with session.pipeline(depth=2) as pipe:
            for _ in range(8):
                await pipe.train_step(X)
                most.append(len(pipe._stream._flight.entries))

    run(use)
    assert max(most) <= 2
    assert len(service.requests["TrainStep"]) == 8


def test_waiting_for_an_answer_ends_in_time(run: Any, service: Any) -> None:
    release = threading.Event()

    def stream(requests: Any, _: Any) -> Any:
        next(requests)
        release.wait()
        yield

    service.streams.append(stream)

    async def use(session: bw.aio.Session) -> None:
        pipe = session.pipeline(timeout=0.1)
        future = await pipe.step()
        with pytest.raises(bw.DeadlineExceededError, match=str(future.request_id)):
            await future
        release.set()

    run(use)


def test_an_answer_that_came_while_the_process_stood_still_is_waited_for_once_more(
    run: Any, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def stream(*_: Any) -> Any:
        release.wait(20)
        yield from ()

    def again_and_again(_: float) -> Iterator[None]:
        for _ in range(200):
            yield
            release.set()

    service.streams.append(stream)

    async def use(session: bw.aio.Session) -> None:
        pipe = session.pipeline(timeout=0.1)
        future = await pipe.step()
        monkeypatch.setattr("backwire.aio._pipeline_stream.waits", again_and_again)
        assert (await future).step == 1

    run(use)


def test_a_cancelled_call_stays_cancelled(run: Any, service: Any) -> None:
    release = threading.Event()

    async def use(session: bw.aio.Session) -> None:
        service.before["Step"].append(lambda _: release.wait())
        task = asyncio.create_task(session.step())
        while not service.requests["Step"]:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    run(use)


def test_a_closed_client_says_so(target: str) -> None:
    async def use() -> None:
        client = bw.aio.connect(target)
        session = await client.create_session(bw.parameter("w", 1.0) * 2, bw.SGD(0.1))
        await client.close()
        await client.close()
        for call in (client.ops(), session.step(), session.parameters(), session.set_parameters({"w": 1.0})):
            with pytest.raises(bw.ClientClosedError):
                await call
        with pytest.raises(bw.ClientClosedError):
            await (await session.pipeline().step())

    asyncio.run(use())


def test_closing_a_client_ends_what_is_on_its_way(target: str, service: Any) -> None:
    release = threading.Event()

    def stream(requests: Any, _: Any) -> Any:
        next(requests)
        release.wait()
        yield

    service.streams.append(stream)

    async def use() -> None:
        client = bw.aio.connect(target)
        session = await client.create_session(bw.parameter("w", 1.0) * 2, bw.SGD(0.1))
        service.before["Step"].append(lambda _: release.wait())
        future = await session.pipeline().train_step({})
        call = asyncio.create_task(session.step())
        while not service.requests["Step"]:
            await asyncio.sleep(0.001)
        await client.close()
        for waiting in (call, future):
            with pytest.raises(bw.ClientClosedError):
                await waiting
        release.set()

    asyncio.run(use())


def test_an_embedded_server_is_started_by_entering(target: str) -> None:
    async def use() -> None:
        client = bw.aio.connect("embedded")
        with pytest.raises(bw.ClientClosedError, match="async with"):
            await client.ops()
        await client.close()

    asyncio.run(use())
    with pytest.raises(bw.InvalidRequestError, match="private already"):
        bw.aio.connect("embedded", token="secret")
    with pytest.raises(bw.InvalidRequestError, match="--data-dir"):
        bw.aio.connect(target, data_dir="here")


def test_a_large_tensor_goes_in_chunks(run: Any, service: Any) -> None:
    too_large = service.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="MESSAGE_TOO_LARGE")
    service.before["TrainStep"].append(too_large)

    async def use(session: bw.aio.Session) -> list[int]:
        return [(await session.train_step(X)).step for _ in range(2)]

    assert run(use) == [1, 2]
