"""What computing a batch in two parts gains: a session of one part beside two of two, on servers of one worker each.

Of the one, a helper process computes the second part, of the other a helper process of another replica.
"""

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks import backwire_models, figures, values
from tests.benchmarks.durable_server import data_directory
from tests.benchmarks.server_process import ServerProcess, backwire_server, cpu_seconds

import backwire as bw

MODELS = ("M", "L")
PARTS = (1, 2)
PEER = "another replica"
LEAST = {"L": 1.6}
"""The speed of two parts relative to one; needs two processors to itself."""


@dataclass(frozen=True)
class Side:
    """A session of a number of parts, and the server that has it."""

    server: ServerProcess
    session: bw.Session
    batch: values.Batch

    def step(self) -> None:
        """Trains on the batch."""
        self.session.train_step(self.batch)

    def calls(self) -> None:
        """Trains on the batch by three calls."""
        self.session.forward(self.batch).backward()
        self.session.step()


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns times of steps, and the processor time that they take of the process that has the session."""
    rows: list[figures.Row] = []
    for model in MODELS:
        with contextlib.ExitStack() as stack:
            say(f"{model} in one part and in two")
            sides = {parts: _side(stack, model, parts) for parts in PARTS}
            elsewhere = _peered(stack, model)
            rows += _rows(model, sides, elsewhere, rounds=5 if quick else 21, burst=0.2 if quick else 0.5)
    return {"title": "TrainStep of a batch in parts (data_parallel), one computed by a helper process", "rows": rows}


def _side(stack: contextlib.ExitStack, model: str, parts: int) -> Side:
    return _trained(stack, stack.enter_context(backwire_server("--workers", "1")), model, parts)


def _peered(stack: contextlib.ExitStack, model: str) -> Side:
    """Returns a session of two parts of a replica without helpers, whose second part another replica computes."""
    directory = stack.enter_context(data_directory())
    flags = ("--workers", "1", "--shared", "--data-dir", str(directory), "--peer-helpers", "1")
    replicas = [
        stack.enter_context(backwire_server(*flags, "--replica", name, "--max-helpers", helpers))
        for name, helpers in (("lender", "1"), ("borrower", "0"))
    ]
    side = _trained(stack, replicas[1], model, 2)
    until = time.monotonic() + 6.0  # what the pace of parts is, and that the helper is ready, is found out by training
    while time.monotonic() < until:
        side.step()
    return side


def _trained(stack: contextlib.ExitStack, server: ServerProcess, model: str, parts: int) -> Side:
    """Returns a session that is kept in memory alone, and has trained."""
    client = stack.enter_context(bw.connect(server.address, timeout=600))
    graph = backwire_models.graph(model)
    session = client.create_session(graph, bw.Adam(values.LEARNING_RATE), data_parallel=parts, durability="memory")
    side = Side(server, session, values.batch(model))
    side.step()
    time.sleep(3.0)  # until the helper is ready
    return side


def _rows(model: str, sides: dict[int, Side], elsewhere: Side, *, rounds: int, burst: float) -> list[figures.Row]:
    steps = {**{str(parts): side.step for parts, side in sides.items()}, PEER: elsewhere.step}
    times = figures.interleaved(steps, rounds=rounds, burst=burst)
    calls = figures.interleaved({str(parts): side.calls for parts, side in sides.items()}, rounds=rounds, burst=burst)
    spent = {parts: _processor_seconds(side, calls=max(rounds, 50)) for parts, side in sides.items()}
    return [
        *(
            figures.row(
                f"{model}, {f'2 parts, one by {PEER}' if parts == PEER else f'{parts} part(s)'}",
                1e3 * statistics.median(each),
                "ms",
            )
            for parts, each in times.items()
        ),
        figures.row(f"{model}, speed of 2 parts, one by {PEER} / 1 part", figures.ratio(times["1"], times[PEER]), "x"),
        figures.row(
            f"{model}, speed of 2 parts / 1", figures.ratio(times["1"], times["2"]), "x", least=LEAST.get(model)
        ),
        figures.row(
            f"{model}, speed of 2 parts / 1 by Forward, Backward and Step", figures.ratio(calls["1"], calls["2"]), "x"
        ),
        figures.row(f"{model}, processor time of the session's process, 1 part / 2", spent[1] / spent[2], "x"),
    ]


def _processor_seconds(side: Side, *, calls: int) -> float:
    """Returns what a step takes of the processors in the session's process, which a busy machine changes little."""
    before = cpu_seconds(side.server.pid)
    for _ in range(calls):
        side.step()
    return (cpu_seconds(side.server.pid) - before) / calls
