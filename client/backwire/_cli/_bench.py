"""`backwire bench`: how fast a server answers and trains, seen from here, with a network of its own.

The network has 784, 128 and 10 units and is given batches of 32, a size at which the way to the server counts. Times
depend on the machine and on what else it does; ratios of one run tell more.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import backwire
from backwire._arrays import Array
from backwire._builder import _activations, _declare, _functions_reduction, _layers, _losses_classes
from backwire._builder._graph import Graph, graph
from backwire._builder._initializers import Zeros
from backwire._cli import _frames, _options
from backwire._cli._frames import Frame
from backwire._client import Client
from backwire._session import Session
from backwire._training._optimizers import Adam

DEPTH = 8
"""How many steps are on their way in a pipeline."""

_WARM = 20
_BATCH = 32
_BYTES = 16 << 20
_TRANSFERS = 5
_HEAD = ("CALL", "MEDIAN", "P95", "P99", "PER SECOND")

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Times:
    """The seconds that calls of one kind took, and how many were done in a second."""

    median: float
    p95: float
    p99: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Bench:
    """What was measured: times by call, bytes per second of large tensors by direction."""

    times: Mapping[str, Times]
    bandwidth: Mapping[str, float]

    def ratios(self) -> dict[str, float]:
        """Returns what the figures mean, on whatever machine."""
        step, times = self.times["train_step"], self.times
        return {
            "train_step / round_trip": step.median / times["round_trip"].median,
            "three_calls / train_step": times["three_calls"].median / step.median,
            "pipelined / train_step": step.per_second / times["pipelined"].per_second,
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "--calls", type=_options.positive, default=300, help="how many of each kind to time (default: %(default)s)"
    )
    _options.add_json(parser)
    _options.add_target(parser, _options.PRIVATE, timeout=60.0)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Measures, and yields what was found, as a table or as JSON."""
    with backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client:
        found = measure(client, options.calls)
    if options.json:
        yield _options.as_json({"target": options.target, "calls": options.calls, **_document(found)})
    else:
        yield from _frames.lines(_frame(found, options.target))


def measure(client: Client, calls: int) -> Bench:
    """Measures with sessions of its own, which are gone afterwards."""
    generator = np.random.default_rng(0)
    batch = {
        "x": generator.standard_normal((_BATCH, 784)).astype("float32"),
        "y": generator.integers(0, 10, _BATCH),
    }
    with client.create_session(_network(), Adam(1e-3)) as session:
        kinds: dict[str, Call] = {
            "round_trip": session.info,
            "forward": lambda: session.forward(batch, "eval"),
            "train_step": lambda: session.train_step(batch),
            "three_calls": lambda: _three_calls(session, batch),
        }
        times = {name: _times(call, calls) for name, call in kinds.items()}
        times["pipelined"] = _pipelined(session, batch, calls)
    return Bench(times, _bandwidth(client))


def _network() -> Graph:
    x, y = _declare.input("x", ("batch", 784)), _declare.input("y", ("batch",), "int64")
    hidden = _activations.relu(_layers.dense(x, 128, name="hidden"))
    logits = _layers.dense(hidden, 10, name="logits")
    return graph(loss=_losses_classes.softmax_cross_entropy(logits, y), outputs={"logits": logits})


def _three_calls(session: Session, batch: Mapping[str, Array]) -> None:
    session.forward(batch, outputs=()).backward()
    session.step()


def _times(call: Call, calls: int) -> Times:
    """Times calls one after another, some before that are not counted."""
    seconds = []
    for number in range(_WARM + calls):
        start = time.perf_counter()
        call()
        if number >= _WARM:
            seconds.append(time.perf_counter() - start)
    return _summary(seconds)


def _pipelined(session: Session, batch: Mapping[str, Array], calls: int) -> Times:
    """Times the answers of steps, of which several are on their way: from one answer to the next."""
    results = session.train_steps((batch for _ in range(_WARM + calls)), depth=DEPTH)
    moments = [time.perf_counter() for _ in results]
    return _summary(np.diff(moments[_WARM - 1 :]).tolist())


def _summary(seconds: list[float]) -> Times:
    median, p95, p99 = (float(each) for each in np.percentile(seconds, (50, 95, 99)))
    return Times(median, p95, p99, len(seconds) / sum(seconds))


def _bandwidth(client: Client) -> dict[str, float]:
    """Returns the bytes per second of writing and reading one large parameter, at best."""
    array = np.zeros(_BYTES // 4, "float32")
    table = _declare.parameter("table", (array.size,), initializer=Zeros())
    with client.create_session(_functions_reduction.mean(table)) as session:
        ways: dict[str, Call] = {
            "send": lambda: session.set_parameters({"table": array}),
            "receive": session.parameters,
        }
        return {name: _BYTES / min(_seconds(call) for _ in range(_TRANSFERS)) for name, call in ways.items()}


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _frame(found: Bench, target: str) -> Frame:
    lines = [
        f"{target}: a network of 784, 128 and 10 units, batches of {_BATCH}, {DEPTH} steps on their way when pipelined",
        *(f"{name}: {_frames.figure(ratio)}" for name, ratio in found.ratios().items()),
        *(f"{name}: {_options.scaled(round(rate), 'B')}/s" for name, rate in found.bandwidth.items()),
    ]
    rows = [
        (name, *(f"{each * 1e3:.3f} ms" for each in (t.median, t.p95, t.p99)), f"{t.per_second:,.0f}")
        for name, t in found.times.items()
    ]
    return Frame(lines, _HEAD, rows, (1, 2, 3, 4))


def _document(found: Bench) -> dict[str, Any]:
    return {
        "seconds": {name: asdict(each) for name, each in found.times.items()},
        "bytes_per_second": dict(found.bandwidth),
        "ratios": found.ratios(),
    }
