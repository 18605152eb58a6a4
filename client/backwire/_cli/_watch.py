"""`backwire watch`: loss, gradient norm and speed of a session while it is trained."""

import argparse
import itertools
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import backwire
from backwire._cli import _frames, _options
from backwire._cli._frames import Frame, figure
from backwire._client import Client
from backwire._status import SessionStatus, StepRecord

_HEAD = ("TIME", "STEP", "LOSS", "NORM", "LR")
_RIGHT = (1, 2, 3, 4)
_LINE = "{:<12}  {:>9}  {:>10}  {:>10}  {:>10}  {:>9}"
_SHOWN = 15
_KEPT = 512
_WINDOW = timedelta(seconds=10)
"""Over what time speed is counted, as far as there were two steps in it."""

_BARS = "▁▂▃▄▅▆▇█"
_WRONG = "×"
_WIDTH = 64


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of a session: the steps since the last time, the last steps in all, and when that was."""

    session: SessionStatus
    fresh: Sequence[StepRecord]
    steps: Sequence[StepRecord]
    time: datetime


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("session", metavar="SESSION", help="the id of the session; `backwire top` lists them")
    parser.add_argument(
        "--interval",
        type=_options.above_zero,
        default=1.0,
        metavar="SECONDS",
        help="how often to ask (default: %(default)g)",
    )
    parser.add_argument("--once", action="store_true", help="show the steps that the server has kept, and end")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each step")
    _options.add_target(parser, _options.RUNNING, timeout=10.0)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Shows the session until it is interrupted or deleted; yields what is to be printed where it is no terminal."""
    with backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client:
        sights = _sights(client, options.session, options.interval)
        if options.json:
            for sight in [next(sights)] if options.once else sights:
                yield from (_options.as_json(_document(each), indent=None) for each in sight.fresh)
        elif options.once:
            yield from _frames.lines(_frame(next(sights)))
        elif (show := _frames.live()) is not None:
            show(map(_frame, sights))
        else:
            first = next(sights)  # before the head, which is not for a session that cannot be had
            yield _LINE.format(*_HEAD, "STEPS/S")
            for sight in itertools.chain([first], sights):
                for last in sight.fresh[-1:]:
                    yield _LINE.format(*_cells(last), figure(speed(sight.steps, sight.time)))


def speed(steps: Sequence[StepRecord], now: datetime) -> float:
    """Returns the steps per second of late; 0 when fewer than two steps are known."""
    known = [each for each in steps if each.time <= now]  # not those from before the server's clock was set back
    recent = [each for each in known if now - each.time <= _WINDOW]
    if len(recent) < 2:
        recent = known[-2:]
    seconds = (now - recent[0].time).total_seconds() if recent else 0.0
    return (len(recent) - 1) / seconds if seconds > 0 else 0.0


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Returns the curve of some values in so many characters at most, each of which stands for the mean of its share.

    A cross stands for values that are not all finite.
    """
    count = min(width, len(values))
    ends = [len(values) * index // count for index in range(count + 1)] if count else []
    means = [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(ends)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(_bar(mean, low, high - low) for mean in means)


def _bar(value: float, low: float, span: float) -> str:
    if not math.isfinite(value):
        return _WRONG
    return _BARS[round((value - low) / span * (len(_BARS) - 1))] if 0 < span < math.inf else _BARS[0]


def _sights(client: Client, session_id: str, interval: float) -> Iterator[Sight]:
    cursor = ""
    steps: deque[StepRecord] = deque(maxlen=_KEPT)
    while True:
        found = client.history(session_id, cursor=cursor)
        cursor = found.cursor
        steps.extend(found.steps)
        yield Sight(found.session, found.steps, tuple(steps), found.time)
        time.sleep(interval)


def _frame(sight: Sight) -> Frame:
    session, steps = sight.session, sight.steps
    pace = figure(speed(steps, sight.time))
    lines = [
        f"session {session.id}: {session.state}, step {session.step:,}, {pace} steps/s",
        _curve("loss", [each.loss for each in steps if each.loss is not None]),
        _curve("norm", [each.gradient_norm for each in steps]),
    ]
    return Frame(lines, _HEAD, [_cells(each) for each in steps[-_SHOWN:]], _RIGHT)


def _curve(name: str, values: Sequence[float]) -> str:
    return f"{name} {figure(values[-1]):>10}  {sparkline(values)}" if values else f"{name} {'-':>10}"


def _cells(each: StepRecord) -> tuple[str, ...]:
    moment = each.time.strftime("%H:%M:%S.%f")[:-3]
    return moment, f"{each.step:,}", figure(each.loss), figure(each.gradient_norm), figure(each.learning_rate)


def _document(each: StepRecord) -> dict[str, Any]:
    return {
        "time": each.time.isoformat(),
        "step": each.step,
        "loss": each.loss,
        "gradient_norm": each.gradient_norm,
        "learning_rate": each.learning_rate,
    }
