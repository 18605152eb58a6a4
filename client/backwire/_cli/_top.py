"""`backwire top`: what a server has to do, and its busiest sessions."""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import backwire
from backwire._cli import _frames, _options
from backwire._cli._frames import Frame, age, figure
from backwire._client import Client
from backwire._status import ServerLoad, ServerStatus, SessionStatus, Usage

_HEAD = ("SESSION", "TENANT", "STATE", "STEP", "STEPS/S", "LOSS", "NORM", "LR", "PASSES", "MEMORY", "USED")
_RIGHT = tuple(range(3, len(_HEAD)))


@dataclass(frozen=True, slots=True)
class Moment:
    """How a server was doing, and the steps per second of its sessions since the moment before."""

    status: ServerStatus
    rates: Mapping[str, float]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "--interval",
        type=_options.above_zero,
        default=2.0,
        metavar="SECONDS",
        help="how often to ask, and over what time steps are counted (default: %(default)g)",
    )
    parser.add_argument(
        "--sessions",
        type=_options.positive,
        default=100,
        metavar="COUNT",
        help="of how many sessions to tell, those that were used last, up to 1000 (default: %(default)s)",
    )
    parser.add_argument("--once", action="store_true", help="print one table after one interval, and end")
    parser.add_argument("--json", action="store_true", help="print JSON after one interval, and end")
    _options.add_target(parser, _options.RUNNING, timeout=10.0)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Shows the server until it is interrupted; yields what is to be printed where it is shown once."""
    with backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client:
        moments = _moments(client, options.sessions, options.interval)
        show = None if options.json or options.once else _frames.live()
        if show is not None:
            show(_frame(moment, options.target) for moment in moments)
            return
        next(moments)
        moment = next(moments)
        if options.json:
            yield _options.as_json(_document(moment))
        else:
            yield from _frames.lines(_frame(moment, options.target))


def _moments(client: Client, most: int, interval: float) -> Iterator[Moment]:
    before = client.status(max_sessions=most)
    yield Moment(before, {})
    while True:
        time.sleep(interval)
        status = client.status(max_sessions=most)
        yield Moment(status, status.rates(before))
        before = status


def _frame(moment: Moment, target: str) -> Frame:
    status = moment.status
    up = age((status.time - status.started).total_seconds())
    workers = f"{status.workers} process{'es' if status.workers != 1 else ''}"
    memory = _options.scaled(status.nbytes, "B")
    lines = [
        f"backwire {status.version} at {target}: up {up}, {workers}",
        f"sessions: {status.session_count:,}, of which {status.awake_count:,} in memory with {memory}",
    ]
    if status.load is not None:
        lines += _load(status.load)
    rows = [_cells(each, moment) for each in _busiest(moment)]
    return Frame(lines, _HEAD, rows, _RIGHT)


def _load(load: ServerLoad) -> Iterator[str]:
    memory = (_options.scaled(each, "B") for each in (load.session_bytes.used, load.session_bytes.limit))
    parts = (
        ("calls", _share(load.calls)),
        ("streams", _share(load.streams)),
        ("pipelines", _share(load.pipelines)),
        ("sessions", _share(load.sessions)),
        ("memory", " of ".join(memory)),
    )
    yield "load: " + ", ".join(f"{name} {text}" for name, text in parts)
    if load.recovering:
        yield f"recovering: {load.recovering:,} sessions"


def _share(usage: Usage) -> str:
    return f"{usage.used:,} of {usage.limit:,}"


def _busiest(moment: Moment) -> list[SessionStatus]:
    """Returns the sessions with most steps per second first; among equals, those that were used last."""
    return sorted(moment.status.sessions, key=lambda each: -moment.rates.get(each.id, 0.0))


def _cells(each: SessionStatus, moment: Moment) -> tuple[str, ...]:
    return (
        each.id,
        each.tenant,
        each.state,
        f"{each.step:,}",
        figure(moment.rates.get(each.id)),
        figure(each.loss),
        figure(each.gradient_norm),
        figure(each.learning_rate),
        str(each.passes),
        _options.scaled(each.nbytes, "B"),
        age((moment.status.time - each.last_used).total_seconds()),
    )


def _document(moment: Moment) -> dict[str, Any]:
    status = moment.status
    return {
        "version": status.version,
        "started": status.started.isoformat(),
        "time": status.time.isoformat(),
        "workers": status.workers,
        "session_count": status.session_count,
        "awake_count": status.awake_count,
        "nbytes": status.nbytes,
        "load": status.load and asdict(status.load),
        "sessions": [
            {
                **asdict(each),
                "last_used": each.last_used.isoformat(),
                "steps_per_second": moment.rates.get(each.id),
            }
            for each in _busiest(moment)
        ],
    }
