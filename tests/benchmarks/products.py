"""How fast each side multiplies matrices: a step of nothing else can have no better ratio.

Time is that of the processor, so that other processes do not show.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from tests.benchmarks import figures
from tests.benchmarks.conductor import Kind, Unavailable, Worker, interleave, workers

OWN, PEER = Kind("products:numpy", "numpy as in the server"), Kind("products:torch", "PyTorch", is_peer=True)
SHAPES = {
    "1024x1024x1024": "large",
    "128x784x512": "of M",
    "1024x128x512": "of the transformer",
    "32x128x512": "of the LSTM",
    "16x144x1024": "of ResNet-8",
    "16x150x640": "of LeNet",
}
"""Rows, inner size and columns, and where there are such products."""
QUICK = ("1024x1024x1024", "16x144x1024")


def measure(peer_python: str, *, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the GFLOP/s of both, on one thread, and the time of numpy's product relative to PyTorch's."""
    say("products of matrices")
    rows: list[figures.Row] = []
    with workers([OWN, PEER], peer_python) as contenders:
        for shape in QUICK if quick else SHAPES:
            rows += _rows(shape, SHAPES[shape], contenders, quick=quick)
    return {"title": "products of float32 matrices on one thread: rows x inner size x columns", "rows": rows}


def _rows(shape: str, where: str, contenders: Sequence[Worker], *, quick: bool) -> list[figures.Row]:
    ready, failures = [], {}
    for worker in contenders:
        try:
            worker.setup(shape)
            ready.append(worker)
        except Unavailable as error:
            failures[worker.kind.name] = str(error)
    times, late = interleave(ready, rounds=5 if quick else 21, burst=0.02 if quick else 0.05)
    failures |= late
    operations, rows = 2 * math.prod(map(int, shape.split("x"))), []
    for kind in (OWN, PEER):
        name = f"{shape}, {where}: {kind.label}"
        if kind.name in failures:
            rows.append(figures.unavailable(name, failures[kind.name]))
        else:
            rows.append(figures.row(name, operations / statistics.median(times[kind.name].cpu) / 1e9, "GFLOP/s"))
    if not failures:
        relative = times[OWN.name].ratio(times[PEER.name], "cpu")
        rows.append(figures.row(f"{shape}, {where}: time relative to PyTorch", relative, "x"))
    return rows
