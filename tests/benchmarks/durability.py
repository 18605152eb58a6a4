"""What it costs that training outlives the server, and how soon it goes on after a crash."""

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks import figures, values
from tests.benchmarks.contender_remote import Durability, new_session
from tests.benchmarks.durable_server import NEVER, data_directory, durable_server, kill, seconds_until_serving

import backwire as bw

MODELS = ("M", "S")
LEVELS: tuple[Durability, ...] = ("memory", "journal", "fsync")
MOST = {("M", "journal"): 1.05, ("M", "fsync"): 1.3}
"""The most time that a step may take, relative to one that outlives nothing."""

STEPS = 64
"""The steps that are sent down one pipeline; several pipelines make a burst."""

REPLAYED = "M"


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the times of steps that are kept on disk, relative to those that are not, and of their replay."""
    rows = []
    for model in MODELS:
        say(f"steps of {model} that outlive the server")
        rows += _levels(model, rounds=5 if quick else 15, burst=0.2 if quick else 1.5)
    say("replay")
    rows += _replay(rounds=1 if quick else 5, steps=200 if quick else 1_000)
    return {"title": "steps on disk, pipelined, and their replay after a crash", "rows": rows}


def _levels(model: str, *, rounds: int, burst: float) -> list[figures.Row]:
    """Measures long bursts, into which checkpoints of M fall, too."""
    with data_directory() as directory, durable_server(directory) as server, bw.connect(server.address) as client:
        calls: dict[str, Callable[[], object]] = {
            level: partial(_fit, new_session(client, model, level), model, STEPS) for level in LEVELS
        }
        times = figures.interleaved(calls, rounds=rounds, burst=burst)
    rows = [
        figures.row(f"{model}, {level}", 1e3 * statistics.median(each) / STEPS, "ms") for level, each in times.items()
    ]
    for level in LEVELS[1:]:
        cost = figures.ratio(times[level], times["memory"])
        rows.append(figures.row(f"{model}, {level} / memory", cost, "x", most=MOST.get((model, level))))
    return rows


def _replay(*, rounds: int, steps: int) -> list[figures.Row]:
    """Returns what a server takes to do all steps of a session again, beside the same steps before it was killed."""
    found = [_train_and_replay(steps) for _ in range(rounds)]
    trained, replayed = ([each[place] / steps for each in found] for place in range(2))
    name = f"{steps:,} steps of {REPLAYED}"
    return [
        figures.row(f"{name}, journal", 1e3 * statistics.median(trained), "ms for each"),
        figures.row(f"{name}, replayed", 1e3 * statistics.median(replayed), "ms for each"),
        figures.row(f"{name}, replayed / journal", figures.ratio(replayed, trained), "x", most=1.0),
    ]


def _train_and_replay(steps: int) -> tuple[float, float]:
    """Returns the seconds of both; replay is measured from when the new server listens."""
    with data_directory() as directory:
        flags = ("--checkpoint-bytes", NEVER)
        with durable_server(directory, *flags) as server:
            with bw.connect(server.address) as client:
                session = new_session(client, REPLAYED)
                begin = time.perf_counter()
                _fit(session, REPLAYED, steps)
                trained = time.perf_counter() - begin
            kill(server)
        with durable_server(directory, *flags) as server:
            return trained, seconds_until_serving(server.address)


def _fit(session: bw.Session, model: str, steps: int) -> None:
    for _ in session.train_steps(itertools.repeat(values.batch(model), steps)):
        pass
