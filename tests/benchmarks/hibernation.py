"""How soon a session is back that was put away to disk, and what a server holds of many."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.benchmarks import figures, values
from tests.benchmarks.contender_remote import new_session
from tests.benchmarks.durable_server import data_directory, durable_server, seconds_until_serving
from tests.benchmarks.server_process import resident_bytes

import backwire as bw

MiB = 1 << 20
TINY = "tiny"
MODELS = (TINY, "S")
AWAKE, SESSIONS = 4, 16
"""So few may be in memory of so many, which are called in turn, that each call finds its session on disk."""

MOST_MILLISECONDS = 5.0
MANY, MOST_MEBIBYTES = 10_000, 1_024.0
CLIENTS = 8


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns how much longer a call takes that wakes its session, and the memory of a server with many sessions."""
    rows = []
    for model in MODELS:
        say(f"sessions of {model} that wake up")
        rows += _wakes(model, rounds=3 if quick else 15)
    count = 200 if quick else MANY
    say(f"{count:,} sessions")
    return {"title": "sessions on disk", "rows": [*rows, *_many(count)]}


def _wakes(model: str, *, rounds: int) -> list[figures.Row]:
    """Calls each of several sessions twice: the first call finds it on disk, the second in memory."""
    batch = values.batch(model)
    asleep, awake, stepped = [], [], []
    with (
        data_directory() as directory,
        durable_server(directory, "--max-awake-sessions", str(AWAKE)) as server,
        bw.connect(server.address) as client,
    ):
        sessions = [new_session(client, model) for _ in range(SESSIONS)]
        for _ in range(rounds):
            stepped += [_seconds(session.train_step, batch) for session in sessions]
            for session in sessions:
                asleep.append(_seconds(session.forward, batch, "eval"))
                awake.append(_seconds(session.forward, batch, "eval"))
    more = statistics.median(a - b for a, b in zip(asleep, awake, strict=True))
    return [
        figures.row(f"{model}, Forward in eval mode, in memory", 1e3 * statistics.median(awake), "ms"),
        figures.row(f"{model}, Forward in eval mode, more on disk", 1e3 * more, "ms", most=MOST_MILLISECONDS),
        figures.row(f"{model}, TrainStep on disk, another is written", 1e3 * statistics.median(stepped), "ms"),
    ]


def _many(count: int) -> list[figures.Row]:
    """Makes sessions that are trained one step each, and starts the server again."""
    flags = ("--max-sessions", str(count))
    with data_directory() as directory:
        with durable_server(directory, *flags) as server, bw.connect(server.address) as client:
            seconds = _make(client, count)
            held = resident_bytes(server.pid)
        begin = time.perf_counter()
        with durable_server(directory, *flags) as server:
            seconds_until_serving(server.address)
            started, after = time.perf_counter() - begin, resident_bytes(server.pid)
    name, most = f"{count:,} sessions of {TINY}", MOST_MEBIBYTES if count == MANY else None
    return [
        figures.row(f"{name}: resident memory", held / MiB, "MiB", most=most),
        figures.row(f"{name}: after a restart", after / MiB, "MiB", most=most),
        figures.row(f"{name}: made, and trained once", count / seconds, "for each second"),
        figures.row(f"{name}: from start to serving", started, "s"),
    ]


def _make(client: bw.Client, count: int) -> float:
    """Returns how many seconds it took."""
    batch = values.batch(TINY)
    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(lambda _: new_session(client, TINY).train_step(batch), range(count)):
            pass
    return time.perf_counter() - begin


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin
