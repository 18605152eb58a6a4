"""What idle sessions hold, what the allocator keeps, and whether training makes the process grow."""

import math
import os
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from tests.benchmarks import figures, values
from tests.benchmarks.conductor import Kind, Unavailable, Worker
from tests.benchmarks.contender_remote import new_session
from tests.benchmarks.server_process import backwire_server, resident_bytes

import backwire as bw

KiB, MiB = 1 << 10, 1 << 20
TINY = "tiny"
MOST_BYTES, MOST_OBJECTS = 4.0, 0.01
"""The most that memory may grow for each step. The smallest object has 16 bytes; resident memory comes and goes by some
hundred kilobytes, which is a few bytes for each of MANY steps, and hides everything in fewer."""

LARGE_BYTES, LARGE_CALLS = 64 * MiB, 8

MANY = 100_000
PARTS = 20
WARM_UP_PARTS = 4
"""Steps are made in so many parts. Growth is told from the parts after those that warm up."""


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns bytes for each idle session, and for each of many steps."""
    say("memory of idle sessions")
    count = 20 if quick else 200
    rows = [_idle(TINY, count, trained=False), _idle("S", count, trained=False), _idle("S", count, trained=True)]
    if not quick:
        rows += [_after_large_calls("tuned"), _after_large_calls("left as it is", "--no-tune-allocator")]
    steps = 5_000 if quick else MANY
    say(f"memory over {steps:,} steps")
    rows += [*_engine_growth(steps), *_remote_growth(steps)]
    return {"title": "memory", "rows": rows}


def _idle(model: str, count: int, *, trained: bool) -> figures.Row:
    with backwire_server("--workers", "1") as server, bw.connect(server.address) as client:
        sessions = [_session(client, model, trained=trained) for _ in range(3)]  # makes the process load what it needs
        before = resident_bytes(server.pid)
        sessions += [_session(client, model, trained=trained) for _ in range(count)]
        held = (resident_bytes(server.pid) - before) / count
        parameters = sum(math.prod(each.shape) * each.dtype.itemsize for each in sessions[0].info().parameters)
    name = f"session of {model} ({parameters / KiB:,.1f} KiB of parameters), {'trained' if trained else 'new'}, idle"
    return figures.row(name, held / KiB, "KiB")


def _after_large_calls(allocator: str, *flags: str) -> figures.Row:
    """Returns what a server keeps after it has worked on large messages."""
    data = np.ones(LARGE_BYTES // 4, np.float32)
    with (
        backwire_server("--workers", "1", "--max-message-bytes", "1Gi", *flags) as server,
        bw.connect(server.address, timeout=600) as client,
        client.create_session(bw.graph(outputs={"y": bw.input("x", ("elements",))[:1]})) as session,
    ):
        session.forward({"x": data[:1]}, "eval")
        before = resident_bytes(server.pid)
        for _ in range(LARGE_CALLS):
            session.forward({"x": data}, "eval")
        held = resident_bytes(server.pid) - before
    return figures.row(f"server, allocator {allocator}, after {LARGE_CALLS} calls of 64 MiB", held / MiB, "MiB")


def _session(client: bw.Client, model: str, *, trained: bool) -> bw.Session:
    session = new_session(client, model)
    if trained:
        session.train_step(values.batch(model))
    return session


def _engine_growth(steps: int) -> list[figures.Row]:
    name = f"engine, {steps:,} steps of {TINY}: growth for each step"
    worker = Worker(Kind("engine", "engine"))
    try:
        worker.setup(TINY)
        parts = [worker.run(steps // PARTS) for _ in range(PARTS)]
    except Unavailable as error:
        return [figures.unavailable(name, error)]
    finally:
        worker.close()
    most, most_objects = (MOST_BYTES, MOST_OBJECTS) if steps >= MANY else (None, None)
    resident, blocks = ([part[kind] for part in parts] for kind in ("resident", "blocks"))
    return [
        figures.row(name, _slope(resident, steps), "bytes", most=most),
        figures.row(name, _slope(blocks, steps), "objects", most=most_objects),
    ]


def _remote_growth(steps: int) -> list[figures.Row]:
    """Returns the growth of a server, and of the client, over as many calls of TrainStep."""
    own: list[float] = []
    servers: list[float] = []
    batch = values.batch(TINY)
    with backwire_server("--workers", "1") as server, bw.connect(server.address) as client:
        session = new_session(client, TINY)
        for _ in range(PARTS):
            for _ in range(steps // PARTS):
                session.train_step(batch)
            servers.append(resident_bytes(server.pid))
            own.append(resident_bytes(os.getpid(), children=False))
    most = MOST_BYTES if steps >= MANY else None
    name = f"{steps:,} calls of TrainStep: growth for each"
    return [
        figures.row(f"server, {name}", _slope(servers, steps), "bytes", most=most),
        figures.row(f"client, {name}", _slope(own, steps), "bytes", most=most),
    ]


def _slope(sizes: list[float], steps: int) -> float:
    """Returns the growth for each step, from the median of the first third of the parts to that of the last."""
    tail = sizes[WARM_UP_PARTS:]
    third = len(tail) // 3
    between = (len(tail) - third) * (steps / PARTS)
    return (statistics.median(tail[-third:]) - statistics.median(tail[:third])) / between
