"""What things cost: the figures that were measured in this project, each with what measured it."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.benchmarks import values

Array = NDArray[Any]
KINDS = ("S", "M", "L")
"""The models that sessions train: those of the benchmarks."""

KiB, MiB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure, its unit, and what it is of and what measures it."""

    value: float
    unit: str
    of: str
    source: str


_STEPS, _DISK, _DURABLE = "--only engine,remote", "--only hibernation", "--only durability"
_PASSING = "FileSession.checkpoint"

MEASURED = {
    "step S": Figure(0.962, "ms", "step of S, remote, pipelined", _STEPS),
    "step M": Figure(6.692, "ms", "step of M, remote, pipelined", _STEPS),
    "step L": Figure(66.24, "ms", "step of L, remote, pipelined", _STEPS),
    "journal": Figure(1.07, "x", "step of M with a journal, relative to one without", _DURABLE),
    "replay": Figure(0.88, "x", "step of M done again from the journal, relative to the first time", _DURABLE),
    "call": Figure(685, "us", "call of a trivial graph", "--only floor"),
    "wake tiny": Figure(1.86, "ms", "session of tiny read from disk", _DISK),
    "wake S": Figure(3.17, "ms", "session of S read from disk", _DISK),
    "swap tiny": Figure(5.18, "ms", "step of tiny that reads it from disk and writes another", _DISK),
    "swap S": Figure(9.59, "ms", "step of S that reads it from disk and writes another", _DISK),
    "awake": Figure(2071, "KiB", "memory of a trained session of S", "--only memory"),
    "entry": Figure(
        0.097, "ms", "processor time of a session on disk when a server starts, of 800", "FileVault.entries"
    ),
    "asleep 200": Figure(67.2, "MiB", "memory of a server with 200 sessions on disk", _DISK),
    "asleep 10,000": Figure(259.9, "MiB", "memory of a server with 10,000 sessions on disk", _DISK),
    "name": Figure(62, "bytes", "directory of sessions, for each of 8,839 in it", "ls of a data directory"),
    "swap calls": Figure(
        49, "calls", "file operations to read a session and write another, of 39", "strace of a server"
    ),
    "passing S": Figure(5.5, "ms", "processor time of a passing checkpoint of S", _PASSING),
    "passing M": Figure(16.6, "ms", "processor time of a passing checkpoint of M", _PASSING),
    "passing calls": Figure(20, "calls", "file operations of a passing checkpoint", "strace of a server"),
}
"""Times are of one core of the machine of docs/performance.md. Sources that begin with `--only` are of `make bench`."""

_ROWS = {
    "journal": ("durability", "M, journal / memory"),
    "replay": ("durability", "steps of M, replayed / journal"),
    "call": ("floor", "Forward by a generated stub"),
    "wake tiny": ("hibernation", "tiny, Forward in eval mode, more on disk"),
    "wake S": ("hibernation", "S, Forward in eval mode, more on disk"),
    "swap tiny": ("hibernation", "tiny, TrainStep on disk, another is written"),
    "swap S": ("hibernation", "S, TrainStep on disk, another is written"),
    "awake": ("memory", "session of S (397.5 KiB of parameters), trained, idle"),
    "asleep 200": ("hibernation", "200 sessions of tiny: after a restart"),
    "asleep 10,000": ("hibernation", "10,000 sessions of tiny: after a restart"),
}
"""The section in which the benchmarks write a figure, and how the name of its row ends."""

_STATE_BYTES = 12
"""Of a parameter in a checkpoint: its value and the two averages of Adam, all float32."""


def read(path: Path) -> dict[str, Figure]:
    """Returns the figures with those in their place that a file of `make bench` has; raises OSError, ValueError."""
    found = json.loads(path.read_text())
    return MEASURED | {name: replace(MEASURED[name], value=v, source=str(path)) for name, v in _values(found)}


def _values(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for kind in KINDS:
        cell = found.get("steps", {}).get(kind, {}).get("remote:pipeline", {})
        if "milliseconds" in cell:
            yield f"step {kind}", cell["milliseconds"]
    for name, (section, ending) in _ROWS.items():
        for row in found.get(section, {}).get("rows", ()):
            if row["name"].endswith(ending) and "figure" in row and row["unit"] == MEASURED[name].unit:
                yield name, row["figure"]


class Costs:
    """What follows from the figures. Arrays have a number for each of KINDS; seconds are of one core.

    Attributes:
        step: Seconds of a step with its journal.
        replay: Seconds of a step that is done again.
        wake: Seconds in which a session is read from disk.
        write: Seconds in which one is written to disk and leaves memory.
        passing: Seconds that a passing checkpoint takes of a core.
        batch: Bytes that a step adds to the journal, and to the network.
        state: Bytes of a checkpoint.
        awake: Bytes of a session in memory.
        asleep: Bytes that a server has of a session on disk, a number.
        entry: Seconds that one more session on disk adds to the start of a server, a number.
        name: Bytes of a directory of sessions for each of them, a number.
        swap_calls: Operations on files in which a session is read and another written, a number.
        passing_calls: Operations on files of a passing checkpoint, a number.
        call: Seconds of a call that computes nothing, a number.
    """

    def __init__(self, figures: Mapping[str, Figure] = MEASURED) -> None:
        value = {name: figure.value for name, figure in figures.items()}
        parameters = np.array([_parameters(kind) for kind in ("tiny", *KINDS)], float)
        steps = np.array([value[f"step {kind}"] for kind in KINDS]) * value["journal"]
        wake = _line(parameters, value["wake tiny"], value["wake S"])
        swap = _line(parameters, value["swap tiny"], value["swap S"] - value["step S"])
        self.step = steps / 1e3
        self.replay = self.step * value["replay"]
        self.wake = wake / 1e3
        self.write = (swap - wake) / 1e3
        self.passing = _line(parameters[1:], value["passing S"], value["passing M"]) / 1e3
        self.batch = np.array([_batch_bytes(kind) for kind in KINDS], float)
        self.state = parameters[1:] * _STATE_BYTES
        self.awake = value["awake"] * KiB * parameters[1:] / parameters[1]
        self.asleep = max(0.0, value["asleep 10,000"] - value["asleep 200"]) * MiB / 9_800
        self.entry = value["entry"] / 1e3
        self.name = value["name"]
        self.swap_calls = value["swap calls"]
        self.passing_calls = value["passing calls"]
        self.call = value["call"] / 1e6


def _line(parameters: Array, first: float, second: float) -> Array:
    """Returns what KINDS take when all beyond the first of these takes is in proportion to the parameters."""
    line: Array = first + (second - first) * (parameters[-3:] - parameters[0]) / (parameters[1] - parameters[0])
    return line


def _parameters(kind: str) -> int:
    _, widths = values.MLPS[kind]
    ends = [*widths[1:], values.CLASSES]
    return sum((before + 1) * after for before, after in zip(widths, ends, strict=True))


def _batch_bytes(kind: str) -> int:
    return sum(math.prod(each.shape) * each.itemsize for each in values.batch(kind).values())
