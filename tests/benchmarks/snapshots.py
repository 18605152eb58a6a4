"""How long training stands still while a large session is written to disk, and what a branch of it takes."""

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tests.benchmarks import figures, values
from tests.benchmarks.durable_server import NEVER, data_directory, durable_server

import backwire as bw

WIDTH = 2_048
BATCH = 4
FREIGHT = 1 << 20
"""The elements of an input that costs next to no time. It makes the journal grow, so that checkpoints are soon due."""

WINDOW = 24
"""The steps that fill the journal with as much as the session has, and so lead to one checkpoint."""

MOST = 5.0
"""The most milliseconds that training may stand still, and that a branch may take."""

QUIET = "no checkpoint"
BACKGROUND, SAVED = "a checkpoint in the background", "SaveCheckpoint"
CHECKPOINT_SECONDS = 60.0


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns how much longer the longest step is for a checkpoint, and the time of branches."""
    say("checkpoints of 100 MB while a session trains")
    rows = _stalls(rounds=2 if quick else 9)
    say("branches of 100 MB")
    rows += _branches(count=5 if quick else 25)
    return {"title": "a session of 101 MB, parameters and what Adam remembers", "rows": rows}


def _stalls(*, rounds: int) -> list[figures.Row]:
    """Trains in windows, in which a checkpoint is written or none, and compares their longest steps."""
    longest: dict[str, list[float]] = {name: [] for name in (QUIET, BACKGROUND, SAVED)}
    steps: list[float] = []
    with (
        data_directory() as directory,
        durable_server(directory / "quiet", "--checkpoint-bytes", NEVER) as quiet,
        durable_server(directory / "busy", "--checkpoint-bytes", "1MiB") as busy,
        bw.connect(quiet.address, timeout=600) as client,
        bw.connect(busy.address, timeout=600) as other,
    ):
        plain, written = new_large_session(client), new_large_session(other)
        for session in (plain, written):
            _train(session, WINDOW // 2)  # so that later checkpoints are due in the middle of a window
        for _ in range(rounds):
            window = _train(plain, WINDOW)
            steps += window
            longest[QUIET].append(max(window))
            longest[BACKGROUND].append(max(_train(written, WINDOW)))
            _await_checkpoint(written)
            longest[SAVED].append(max(_train_and_save(plain)))
    rows = [figures.row("TrainStep", 1e3 * statistics.median(steps), "ms")]
    rows += [
        figures.row(f"the longest of {WINDOW}, {name}", 1e3 * statistics.median(each), "ms")
        for name, each in longest.items()
    ]
    for name in (BACKGROUND, SAVED):
        more = statistics.median(a - b for a, b in zip(longest[name], longest[QUIET], strict=True))
        rows.append(figures.row(f"{name}: the longest is longer by", 1e3 * more, "ms", most=MOST))
    return rows


def _train(session: bw.Session, steps: int) -> list[float]:
    """Returns the seconds of each of so many steps."""
    batch, times = _batch(), []
    for _ in range(steps):
        begin = time.perf_counter()
        session.train_step(batch)
        times.append(time.perf_counter() - begin)
    return times


def _train_and_save(session: bw.Session) -> list[float]:
    """Returns the seconds of each step of a window, in which another thread saves a checkpoint."""
    thread = threading.Thread(target=session.save_checkpoint, args=("benchmark",))
    times = _train(session, WINDOW // 2)
    thread.start()
    times += _train(session, WINDOW - WINDOW // 2)
    thread.join()
    return times


def _await_checkpoint(session: bw.Session) -> None:
    """Returns when the checkpoint of the window is there that just ended; raises TimeoutError when it does not come."""
    began = session.info().step - WINDOW
    deadline = time.monotonic() + CHECKPOINT_SECONDS
    while session.checkpoints()[-1].step <= began:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no checkpoint followed step {began}")
        time.sleep(0.05)


def _branches(*, count: int) -> list[figures.Row]:
    batch = _batch()
    times: dict[str, list[float]] = {"ForkSession": [], "TrainStep after it, which copies": [], "TrainStep": []}
    with (
        data_directory() as directory,
        durable_server(directory) as server,
        bw.connect(server.address, timeout=600) as client,
    ):
        session = new_large_session(client)
        for _ in range(count):
            begin = time.perf_counter()
            branch = session.fork()
            times["ForkSession"].append(time.perf_counter() - begin)
            times["TrainStep after it, which copies"] += _train(session, 1)
            times["TrainStep"] += _train(session, 1)
            branch.close()
            session.train_step(batch)
    return [
        figures.row(name, 1e3 * statistics.median(each), "ms", most=MOST if name == "ForkSession" else None)
        for name, each in times.items()
    ]


def new_large_session(client: bw.Client) -> bw.Session:
    """Returns a session that has made a step, with 8.4 million parameters."""
    h = bw.input("x", ("batch", WIDTH))
    for name in ("first", "second"):
        h = bw.relu(bw.dense(h, WIDTH, name=name))
    freight = bw.input("freight", ("elements",))
    session = client.create_session(bw.mean(h * h) + 0.0 * freight[0], bw.Adam(values.LEARNING_RATE))
    session.train_step(_batch())
    return session


def _batch() -> values.Batch:
    x = np.random.default_rng(0).normal(size=(BATCH, WIDTH)).astype(np.float32)
    return {"x": x, "freight": np.zeros(FREIGHT, np.float32)}
