"""Many small sessions that train at the same time: computed in groups, one by one, and by numpy."""

import contextlib
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.benchmarks import backwire_models, figures, values
from tests.benchmarks.conductor import Kind, interleave, workers
from tests.benchmarks.contender_sessions import COUNT, TOGETHER
from tests.benchmarks.server_process import backwire_server, cpu_seconds

import backwire as bw

MODELS = ("S", "tiny")
KINDS = {
    "in groups": Kind(f"sessions:{TOGETHER}", "in groups"),
    "one by one": Kind("sessions:jax", "one by one"),
    "numpy": Kind("sessions:numpy", "numpy"),
}
SERVERS = {
    "in groups": ("--executor", "jax", "--group-sessions"),
    "one by one": ("--executor", "jax"),
    "numpy": (),
}
WARM_UP_STEPS = 8  # so that groups of all sizes are compiled
STEPS = 8  # of each session in a round

Seconds = Mapping[str, Sequence[float]]


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the steps per second of all sessions together, in process and over the wire, and how they compare."""
    rounds = 5 if quick else 15
    rows = []
    for model in MODELS:
        say(f"{COUNT} sessions of {model} in process")
        rows += _in_process(model, rounds)
        say(f"{COUNT} sessions of {model} over the wire")
        rows += _over_the_wire(model, rounds)
    return {"title": f"TrainSteps of {COUNT} sessions at the same time, a thread for each", "rows": rows}


def _in_process(model: str, rounds: int) -> list[figures.Row]:
    with workers(KINDS.values(), sys.executable) as contenders:
        for worker in contenders:
            worker.setup(model)
        times, failures = interleave(contenders, rounds=rounds, burst=1.0)
    where = f"{model} in process"
    if failures:
        return [figures.unavailable(f"{where}: {name}", reason) for name, reason in failures.items()]
    found = {name: times[kind.name] for name, kind in KINDS.items()}
    return _rows(where, {n: each.wall for n, each in found.items()}, {n: each.cpu for n, each in found.items()})


def _over_the_wire(model: str, rounds: int) -> list[figures.Row]:
    wall: dict[str, list[float]] = {name: [] for name in SERVERS}
    cpu: dict[str, list[float]] = {name: [] for name in SERVERS}
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(backwire_server("--workers", "1", *each)) for name, each in SERVERS.items()
        }
        sessions = {name: _sessions(stack, server.address, model) for name, server in servers.items()}
        for each in sessions.values():
            _train(each, model, WARM_UP_STEPS)
        for _ in range(rounds):
            for name, each in sessions.items():
                before = cpu_seconds(servers[name].pid)
                wall[name].append(_train(each, model, STEPS) / STEPS)
                cpu[name].append((cpu_seconds(servers[name].pid) - before) / STEPS)
    return _rows(f"{model} over the wire", wall, cpu)


def _rows(where: str, wall: Seconds, cpu: Seconds) -> list[figures.Row]:
    """Returns rows from the seconds that a step of all sessions took in each round, by the clock and by processors."""
    rows = [figures.row(f"{where}: {name}", COUNT / statistics.median(each), "steps/s") for name, each in wall.items()]
    own = "in groups"
    for other in ("one by one", "numpy"):
        rows.append(figures.row(f"{where}: {own} / {other}", figures.ratio([*wall[other]], [*wall[own]]), "x"))
        processors = figures.ratio([*cpu[other]], [*cpu[own]])
        rows.append(figures.row(f"{where}: the same, by processor time", processors, "x"))
    return rows


def _sessions(stack: contextlib.ExitStack, address: str, model: str) -> list[bw.Session]:
    client = stack.enter_context(bw.connect(address, timeout=600))
    graph, optimizer = backwire_models.graph(model), bw.Adam(values.LEARNING_RATE)
    return [stack.enter_context(client.create_session(graph, optimizer, seed=seed)) for seed in range(COUNT)]


def _train(sessions: Sequence[bw.Session], model: str, steps: int) -> float:
    """Returns the seconds until all sessions have made so many steps, each from a thread of its own."""
    batch = values.batch(model)

    def train(session: bw.Session) -> None:
        for _ in range(steps):
            session.train_step(batch)

    threads = [threading.Thread(target=train, args=(session,)) for session in sessions]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin
