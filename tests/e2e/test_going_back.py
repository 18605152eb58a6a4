"""A client that is in the middle of training hears of it when its session has gone back."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.storage.journal.power import end_boot

import backwire as bw
from backwire import aio

Start = Callable[..., Any]


def graph() -> bw.Graph:
    x = bw.input("x", ("batch",))
    return bw.graph(loss=bw.squared_error(bw.parameter("w", 0.0) * x, 3 * x))


def batch(number: int) -> dict[str, Any]:
    return {"x": np.full(4, 1 + number / 8, "f4")}


def batches(count: int) -> Iterator[dict[str, Any]]:
    return map(batch, range(1, count + 1))


def lose_power(server: Any, session: Path) -> None:
    """Ends a server, and all of the last two records of a session but a few bytes."""
    server.signal(signal.SIGKILL)
    server.wait()
    [segment] = session.glob("journal-*")
    data, places = segment.read_bytes(), [8]
    while places[-1] < len(data):
        places.append(places[-1] + 8 + int.from_bytes(data[places[-1] : places[-1] + 4], "little"))
    os.truncate(segment, places[-3] + 20)
    end_boot(session)


def test_training_goes_on_after_a_loss_of_power_and_says_from_where(start_server: Start, tmp_path: Path) -> None:
    flags = ("--listen", f"unix:{tmp_path}/socket", "--data-dir", str(tmp_path / "data"))
    server = start_server(*flags)
    with bw.connect(server.wait_until_ready()) as client:
        session, twin = (client.create_session(graph(), bw.SGD(0.01, momentum=0.9)) for _ in range(2))
        loop = session.train_steps(batches(6), depth=1)
        assert [next(loop).step for _ in range(5)] == [1, 2, 3, 4, 5]
        last = session.train_step(batch(7), request_id="lost")
        for number in (1, 2, 3, 4, 6, 7):
            twin.train_step(batch(number))
        lose_power(server, tmp_path / "data" / "sessions" / session.id)
        server = start_server(*flags)
        address = server.wait_until_ready()
        assert session.info().step == 4
        with pytest.raises(bw.StepMismatchError):
            session.train_step(batch(7), expected_step=last.step)
        with pytest.warns(RuntimeWarning, match="was at step 5, and at step 5 after the next one"):
            assert next(loop).step == 5
        assert session.train_step(batch(7), request_id="lost").step == 6, "what was lost is done when it comes again"
        assert session.digest() == twin.digest()
        assert list(loop) == []
        name = session.id
    asyncio.run(_awaited(address, name))
    with bw.connect(address) as client:
        _fitted(client.session(name))
    server.signal()
    server.wait()
    told = "".join(server.errors)
    assert f"session {name} goes on from step 4, record 4 of its journal" in told
    assert "at least 1 records, of which 20 bytes were left" in told


async def _awaited(address: str, name: str) -> None:
    async with aio.connect(address) as client:
        session = await client.session(name)
        loop = session.train_steps(batches(9), depth=1)
        assert (await anext(loop)).step == 7
        await session.rewind(2)
        with pytest.warns(RuntimeWarning, match="was at step 7, and at step 3 after the next one"):
            await anext(loop)
        await loop.aclose()


def _fitted(session: bw.Session) -> None:
    class Back(bw.Callback):
        def on_step(self, training: bw.Training, result: bw.TrainStepResult) -> None:
            if result.step == 5:
                training.session.rewind(3)

    class BackBetween(bw.Callback):
        def on_epoch(self, training: bw.Training, _: bw.Epoch) -> None:
            if training.epoch == 1:
                training.session.rewind(6)

    data = [batch(number) for number in range(1, 5)]
    with pytest.warns(RuntimeWarning, match="was at step 5, and at step 4 after the next one"):
        session.fit(data, callbacks=[Back()], depth=1)
    with pytest.warns(RuntimeWarning, match="was at step 7, and is at step 6 before the next one"):
        session.fit(data, epochs=2, callbacks=[BackBetween()], depth=1)
