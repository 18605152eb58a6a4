"""The asyncio client against the real server: the bits of the other client, many sessions at once, and files."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.test_fit import X, classifier
from tests.faults.proxy import Proxy

import backwire as bw

DATA: dict[str, Any] = {"x": X, "y": X[:, :4].argmax(axis=1)}
BATCHES: list[dict[str, Any]] = [{"x": X[i : i + 8], "y": DATA["y"][i : i + 8]} for i in range(0, 48, 8)]


Use = Callable[[bw.aio.Client], Awaitable[Any]]


@pytest.fixture
def run(server_address: str) -> Callable[[Use], Any]:
    async def started(use: Use) -> Any:
        async with bw.aio.connect(server_address) as client:
            return await use(client)

    return lambda use: asyncio.run(started(use))


def expected(server_address: str, train: Callable[[bw.Session], Any]) -> tuple[Any, str]:
    """What the other client returns, and the digest that it leaves."""
    with bw.connect(server_address) as client, client.create_session(classifier(), bw.Adam(1e-2), seed=3) as session:
        return train(session), session.digest()


async def new(client: bw.aio.Client) -> bw.aio.Session:
    return await client.create_session(classifier(), bw.Adam(1e-2), seed=3)


def test_three_verbs_give_the_bits_of_the_other_client(run: Any, server_address: str) -> None:
    def train(session: bw.Session) -> list[float]:
        return [session.train_step(batch).loss for batch in BATCHES]

    async def use(client: bw.aio.Client) -> tuple[Any, str]:
        session, losses = await new(client), []
        for batch in BATCHES:
            forward = await session.forward(batch)
            await forward.backward()
            await session.step()
            losses.append(forward.loss)
        return losses, await session.digest()

    assert run(use) == expected(server_address, train)


def test_pipelines_give_the_bits_of_the_other_client(run: Any, server_address: str) -> None:
    def train(session: bw.Session) -> list[float]:
        return [session.train_step(batch).loss for batch in BATCHES]

    async def use(client: bw.aio.Client) -> tuple[Any, str]:
        session, forwards = await new(client), []
        async with session.pipeline(depth=5) as pipe:
            for batch in BATCHES:
                forwards.append(await pipe.forward(batch))
                await pipe.backward(forwards[-1])
                await pipe.step()
        return [(await forward).loss for forward in forwards], await session.digest()

    assert run(use) == expected(server_address, train)


def test_steps_in_a_loop_give_the_bits_of_the_other_client(run: Any, server_address: str) -> None:
    async def use(client: bw.aio.Client) -> tuple[Any, str]:
        session = await new(client)
        losses = [result.loss async for result in session.train_steps(BATCHES, depth=3)]
        return losses, await session.digest()

    assert run(use) == expected(server_address, lambda session: [each.loss for each in session.train_steps(BATCHES)])


def test_steps_on_their_way_when_a_loop_is_left_are_applied(run: Any) -> None:
    async def use(client: bw.aio.Client) -> int:
        session = await new(client)
        async with aclosing(session.train_steps(BATCHES, depth=3)) as results:
            async for result in results:
                if result.step == 2:
                    break
        return (await session.info()).step

    assert run(use) == 4


def test_fit_gives_the_bits_of_the_other_client(run: Any, server_address: str) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "validation": 0.2}

    async def use(client: bw.aio.Client) -> tuple[Any, str]:
        session = await new(client)
        history = await session.fit(DATA, **settings)
        return history.series(), await session.digest()

    assert run(use) == expected(server_address, lambda session: session.fit(DATA, **settings).series())


def test_fit_reads_batches_that_arrive(run: Any, server_address: str) -> None:
    async def arriving() -> AsyncIterator[dict[str, Any]]:
        for batch in BATCHES:
            await asyncio.sleep(0)
            yield batch

    async def use(client: bw.aio.Client) -> tuple[Any, str]:
        session = await new(client)
        return (await session.fit(arriving, epochs=2)).series(), await session.digest()

    assert run(use) == expected(server_address, lambda session: session.fit(BATCHES, epochs=2).series())


def test_a_fit_that_is_cancelled_notes_what_was_on_its_way(run: Any) -> None:
    history = bw.History()

    class Cancel(bw.Callback):
        async def on_step(self, training: bw.Training, result: bw.TrainStepResult) -> None:
            if result.step == 3:
                training.learning_rate = None
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    async def use(client: bw.aio.Client) -> int:
        session = await new(client)
        with pytest.raises(asyncio.CancelledError):
            await session.fit(BATCHES, epochs=9, depth=3, history=history, callbacks=[Cancel()])
        asyncio.current_task().uncancel()  # type: ignore[union-attr]
        return (await session.info()).step

    assert run(use) == history.step == len(history.steps)


def test_callbacks_keep_the_best_here_too(run: Any) -> None:
    async def use(client: bw.aio.Client) -> float:
        y = bw.input("y", ("batch",))
        session = await client.create_session(bw.mean((bw.parameter("w", 0.0) - y) ** 2), bw.SGD(0.25))
        await session.fit({"y": [3.0]}, validation={"y": [2.0]}, epochs=5, callbacks=[bw.BestCheckpoint()])
        return float((await session.parameters())["w"])

    assert run(use) == 2.25


def test_evaluating_and_predicting_give_what_the_other_client_does(run: Any, server_address: str) -> None:
    async def use(client: bw.aio.Client) -> tuple[Any, str]:
        session = await new(client)
        found = await session.evaluate(DATA), (await session.predict(X, "logits")).tolist()
        return found, await session.digest()

    def read(session: bw.Session) -> Any:
        return session.evaluate(DATA), session.predict(X, "logits").tolist()

    assert run(use) == expected(server_address, read)


def test_connections_that_break_lose_no_step(run: Any, server_address: str) -> None:
    proxy = Proxy(server_address)

    async def use(client: bw.aio.Client) -> tuple[Any, str]:
        session = await new(client)
        patient = bw.Retry(attempts=40, initial=0.02, maximum=0.2)
        async with bw.aio.connect(proxy.address, retry=patient) as cut:
            losses = []
            async for result in (await cut.session(session.id)).train_steps(BATCHES * 5, depth=3):
                losses.append(result.loss)
                if result.step % 7 == 0:
                    proxy.cut()
        return losses, await session.digest()

    try:
        found = run(use)
    finally:
        proxy.close()
    assert proxy.connections >= 4, "the last cut may come when all is answered"
    assert found == expected(
        server_address, lambda session: [each.loss for each in session.train_steps(BATCHES * 5, depth=3)]
    )


def test_a_hundred_sessions_train_at_once_without_mixing(run: Any) -> None:
    async def train(client: bw.aio.Client, goal: int) -> float:
        y = bw.input("y", ("batch",))
        session = await client.create_session(bw.mean((bw.parameter("w", 0.0) - y) ** 2), bw.SGD(0.5))
        async with session:
            forward = await session.forward({"y": [goal]})
            await forward.backward()
            await session.step()
            async with session.pipeline() as pipe:
                steps = [await pipe.train_step({"y": [goal]}) for _ in range(5)]
            assert [(await each).step for each in steps] == [2, 3, 4, 5, 6]
            return float((await session.parameters())["w"])

    async def use(client: bw.aio.Client) -> list[float]:
        return await asyncio.gather(*(train(client, goal) for goal in range(100)))

    assert run(use) == list(range(100))


def test_sessions_go_to_files_and_come_back(run: Any, tmp_path: Path) -> None:
    async def use(client: bw.aio.Client) -> None:
        session = await new(client)
        await session.train_step(BATCHES[0])
        digest, file = await session.digest(), io.BytesIO()
        await session.save(tmp_path / "session.safetensors")
        await session.export(file)
        file.seek(0)
        for copy in (await client.load(tmp_path / "session.safetensors"), await client.import_session(file)):
            assert await copy.digest() == digest
        with pytest.raises(bw.InvalidExportError):
            await client.import_session(io.BytesIO(b"no session" * 1_000_000))

    run(use)


def test_what_a_server_says_of_sessions_is_read_page_by_page(run: Any) -> None:
    async def use(client: bw.aio.Client) -> None:
        made = [await new(client) for _ in range(5)]
        listed = [each.id async for each in client.sessions(page_size=2)]
        assert {each.id for each in made} <= set(listed)
        assert len(listed) == len(set(listed))
        assert (await (await client.session(made[0].id)).info()).step == 0
        assert (await (await made[0].fork()).info()).step == 0

    run(use)


def test_tensors_beyond_the_message_limit_travel_in_chunks(start_server: Any) -> None:
    address = start_server("--max-message-bytes", "4194304").wait_until_ready()

    async def use() -> None:
        async with bw.aio.connect(address) as client:
            x = bw.input("x", ("batch",))
            session = await client.create_session(bw.graph(outputs={"y": x * bw.parameter("w", 2.0)}))
            large = np.arange(2_000_000, dtype=np.float32)
            assert np.array_equal((await session.forward({"x": large})).outputs["y"], large * 2)
            async with session.pipeline() as pipe:
                future = await pipe.forward({"x": large}, mode="eval")
            assert np.array_equal((await future).outputs["y"], large * 2)

    asyncio.run(use())
