"""Sessions that train at the same time, on servers with one worker process and with two."""

import contextlib
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks import figures, values
from tests.benchmarks.contender_remote import new_session
from tests.benchmarks.server_process import ServerProcess, backwire_server

import backwire as bw

MODEL = "M"
SESSIONS = (1, 2, 8)
WORKERS = (1, 2)
LEAST = 1.7
"""The steps per second of two workers relative to those of one, with eight sessions; needs two processors to itself."""


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the steps per second of all sessions together."""
    rounds, seconds = (3, 0.5) if quick else (9, 1.0)
    rows: list[figures.Row] = []
    speeds: dict[tuple[int, int], list[float]] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for workers in WORKERS:
            try:
                servers[workers] = stack.enter_context(backwire_server("--workers", str(workers)))
            except OSError as error:
                rows.append(figures.unavailable(f"{workers} workers", error))
        for count in SESSIONS:
            say(f"{count} sessions on {' and '.join(map(str, servers))} workers")
            speeds |= _measure_sessions(servers, count, rounds, seconds)
    for (workers, count), each in speeds.items():
        name = f"{count} session{'s' if count > 1 else ''}, {workers} worker{'s' if workers > 1 else ''}"
        rows.append(figures.row(name, statistics.median(each), "steps/s"))
    for count in SESSIONS:
        if all((workers, count) in speeds for workers in WORKERS):
            gain = figures.ratio(speeds[2, count], speeds[1, count])
            least = LEAST if count == max(SESSIONS) else None
            rows.append(figures.row(f"2 workers / 1 worker, {count} sessions", gain, "x", least=least))
    return {"title": f"steps of {MODEL} per second, TrainStep from a thread for each session", "rows": rows}


def _measure_sessions(
    servers: dict[int, ServerProcess], count: int, rounds: int, seconds: float
) -> dict[tuple[int, int], list[float]]:
    speeds: dict[tuple[int, int], list[float]] = {(workers, count): [] for workers in servers}
    with contextlib.ExitStack() as stack:
        sessions: dict[int, list[bw.Session]] = {}
        for workers, server in servers.items():
            client = stack.enter_context(bw.connect(server.address, timeout=600))
            sessions[workers] = [stack.enter_context(new_session(client, MODEL)) for _ in range(count)]
            _steps_per_second(sessions[workers], seconds / 4)
        for _ in range(rounds):
            for workers, each in sessions.items():
                speeds[workers, count].append(_steps_per_second(each, seconds))
    return speeds


def _steps_per_second(sessions: list[bw.Session], seconds: float) -> float:
    batch = values.batch(MODEL)
    done = [0] * len(sessions)
    start = threading.Barrier(len(sessions) + 1)
    end = threading.Event()

    def train(place: int) -> None:
        start.wait()
        while not end.is_set():
            sessions[place].train_step(batch)
            done[place] += 1

    threads = [threading.Thread(target=train, args=(place,), daemon=True) for place in range(len(sessions))]
    for thread in threads:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    end.wait(seconds)
    end.set()
    total, elapsed = sum(done), time.perf_counter() - begin
    for thread in threads:
        thread.join()
    return total / elapsed
