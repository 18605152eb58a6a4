"""What a worker tells of its data directory, by which a server of several says whether it serves."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backwire_server.workers import worker
from backwire_server.workers.front import Front
from backwire_server.workers.process import WorkerProcess


class Looks(threading.Event):
    """Is set after so many."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002
        self.left -= 1
        return self.left < 0


async def hear(lines: str, front: Front) -> None:
    """Has a worker report so."""
    reader = asyncio.StreamReader()
    reader.feed_data(lines.encode())
    reader.feed_eof()
    found = WorkerProcess.__new__(WorkerProcess)
    found._census = {}
    found._process = cast(Any, SimpleNamespace(stdout=reader))
    found._on_report = front._tell_health
    cast(Any, front)._supervisor.workers.append(found)
    await found._read_reports()


@pytest.mark.parametrize("hung", [[False], [True], [True, False], [False, True]])
def test_a_server_serves_while_no_data_directory_of_its_workers_hangs(
    hung: list[bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(hung)

    class Serving:
        census, recovering = (1, 1), 0

        @property
        def hangs(self) -> bool:
            return left.pop(0)

    worker._report(cast(Any, Serving()), Looks(len(hung)))
    lines, told = capsys.readouterr().out, []
    monkeypatch.setattr(Front, "tell_health", lambda _, *, serving: told.append(serving))
    front = Front.__new__(Front)
    front._supervisor = cast(Any, SimpleNamespace(workers=[SimpleNamespace(recovering=0, hangs=False)]))
    asyncio.run(hear(lines, front))
    assert told == [not each for each in hung]
