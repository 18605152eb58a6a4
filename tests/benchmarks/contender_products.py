"""Products of matrices, which are most of the work of most models: how fast they are decides what can be reached."""

import os
from collections.abc import Callable
from typing import Any

from tests.benchmarks import values


class Contender:
    """Products of two matrices into a third, by the variant: `numpy`, set up as in the server, or `torch`."""

    def __init__(self, variant: str) -> None:
        self._prepare: Callable[[int, int, int], Callable[[], object]] = {"numpy": _numpy, "torch": _torch}[variant]

    def setup(self, model: str) -> dict[str, Any]:
        """As in the protocol, where `model` tells the rows, the inner size and the columns, such as 16x144x1024."""
        rows, inner, columns = map(int, model.split("x"))
        self._product = self._prepare(rows, inner, columns)
        return {}

    def run(self, steps: int) -> None:
        """As in the protocol."""
        for _ in range(steps):
            self._product()


def _numpy(rows: int, inner: int, columns: int) -> Callable[[], object]:
    from backwire_server import machine

    machine.prepare(machine.Tuning(), os.environ)
    import numpy as np

    a, b = values.matrix(rows, inner), values.matrix(inner, columns)
    out = np.empty((rows, columns), np.float32)
    return lambda: np.matmul(a, b, out=out)


def _torch(rows: int, inner: int, columns: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    a, b = (torch.from_numpy(values.matrix(*shape)) for shape in ((rows, inner), (inner, columns)))
    out = torch.empty(rows, columns)
    return lambda: torch.mm(a, b, out=out)
