"""What a command shows of a moment: lines and a table, as text, or on a terminal that is drawn anew."""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backwire._cli import _options


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines, and below them a table with a head; columns in `right` are aligned to the right."""

    lines: Sequence[str]
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[int, ...] = ()

    def text(self) -> Iterator[str]:
        """Yields all of it as lines."""
        yield from self.lines
        yield ""
        yield from _options.table([self.head, *self.rows], right=self.right)


def live() -> Callable[[Iterable[Frame]], None] | None:
    """Returns what shows frames one after another; None when the output is no terminal, or rich is not installed."""
    show: Callable[[Iterable[Frame]], None] | None = _of_terminals("show")
    return show


def lines(frame: Frame) -> Iterator[str]:
    """Yields a frame that stays: as lines, or with colours where `live` would show it."""
    drawn: Callable[[Frame], str] | None = _of_terminals("text")
    if drawn is None:
        yield from frame.text()
    else:
        yield drawn(frame)


def _of_terminals(name: str) -> Any:
    """Returns a function of `_live`; None when the output is no terminal, or rich is not installed."""
    if not sys.stdout.isatty():
        return None
    try:
        return getattr(importlib.import_module("backwire._cli._live"), name)
    except ModuleNotFoundError:
        return None


def figure(number: float | None) -> str:
    """Returns a number to four digits, and a dash for none."""
    return "-" if number is None else f"{number:.4g}"


def age(seconds: float) -> str:
    """Returns a time in the largest unit of which it has one."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
