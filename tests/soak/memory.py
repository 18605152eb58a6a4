"""What the processes of a server hold, as /proc tells it, over the calls that they have served."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tests.faults.launchers import Process

MEGABYTE = 1e6
PER_CALLS = 100_000
WARM_UP = 1 / 3


@dataclass(frozen=True)
class Holding:
    """The sums over processes of resident memory in MB, and of threads and open descriptors."""

    resident: float
    threads: int
    descriptors: int


@dataclass
class Curve:
    """Resident memory over calls."""

    calls: list[int] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)

    def add(self, calls: int, resident: float) -> None:
        """Adds a sample."""
        self.calls.append(calls)
        self.resident.append(resident)

    @property
    def slope(self) -> float | None:
        """The MB that come with PER_CALLS calls after the warm-up, by least squares; None after fewer calls than these.

        In shorter runs the allocator is still filling its arenas, and the slope says nothing about later ones.
        """
        calls, resident = np.array(self.calls, float), np.array(self.resident)
        if not len(calls) or calls[-1] * (1 - WARM_UP) < PER_CALLS:
            return None
        warm = calls >= calls[-1] * WARM_UP
        return float(np.polyfit(calls[warm] / PER_CALLS, resident[warm], 1)[0])


def holding(process: Process) -> Holding:
    """Returns what a server holds, and the processes that it has started."""
    children = process.children()
    pids = [process.pid, *(child.pid for child in children)]
    for child in children:
        os.close(child.descriptor)
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return Holding(
        resident=pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE,
        threads=sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
    )
