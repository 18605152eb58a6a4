"""What computing a batch in two parts gains: a session of one part beside one of two, on servers of one worker each."""

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks import backwire_models, figures, values
from tests.benchmarks.server_process import ServerProcess, backwire_server, cpu_seconds

import backwire as bw

MODELS = ("M", "L")
PARTS = (1, 2)
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


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns times of steps, and the processor time that they take of the process that has the session."""
    rows: list[figures.Row] = []
    for model in MODELS:
        with contextlib.ExitStack() as stack:
            say(f"{model} in one part and in two")
            sides = {parts: _side(stack, model, parts) for parts in PARTS}
            rows += _rows(model, sides, rounds=5 if quick else 21, burst=0.2 if quick else 0.5)
    return {"title": "TrainStep of a batch in parts (data_parallel), one computed by a helper process", "rows": rows}


def _side(stack: contextlib.ExitStack, model: str, parts: int) -> Side:
    server = stack.enter_context(backwire_server("--workers", "1"))
    client = stack.enter_context(bw.connect(server.address, timeout=600))
    graph = backwire_models.graph(model)
    session = client.create_session(graph, bw.Adam(values.LEARNING_RATE), data_parallel=parts)
    side = Side(server, session, values.batch(model))
    side.step()
    time.sleep(3.0)  # until the helper is ready
    return side


def _rows(model: str, sides: dict[int, Side], *, rounds: int, burst: float) -> list[figures.Row]:
    times = figures.interleaved({str(parts): side.step for parts, side in sides.items()}, rounds=rounds, burst=burst)
    spent = {parts: _processor_seconds(side, calls=max(rounds, 50)) for parts, side in sides.items()}
    return [
        *(
            figures.row(f"{model}, {parts} part(s)", 1e3 * statistics.median(each), "ms")
            for parts, each in times.items()
        ),
        figures.row(
            f"{model}, speed of 2 parts / 1", figures.ratio(times["1"], times["2"]), "x", least=LEAST.get(model)
        ),
        figures.row(f"{model}, processor time of the session's process, 1 part / 2", spent[1] / spent[2], "x"),
    ]


def _processor_seconds(side: Side, *, calls: int) -> float:
    """Returns what a step takes of the processors in the session's process, which a busy machine changes little."""
    before = cpu_seconds(side.server.pid)
    for _ in range(calls):
        side.step()
    return (cpu_seconds(side.server.pid) - before) / calls
