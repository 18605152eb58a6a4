"""Pieces of HTML that notebooks show in place of a text; well-formed, and without scripts."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

MOST_ROWS = 30
"""The most rows that a table shows; the rest is only counted."""

_WIDTH, _HEIGHT = 320, 80


def heading(title: str, *facts: str) -> str:
    """Returns a line with a title and facts behind it."""
    told = "".join(f" &#183; {escape(fact)}" for fact in facts)
    return f"<div><b>{escape(title)}</b>{told}</div>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table, an empty text for one without rows."""
    remaining = iter(rows)
    shown = list(islice(remaining, MOST_ROWS))
    left = sum(1 for _ in remaining)
    if not shown:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_cell(each))}</td>' for each in row)}</tr>" for row in shown)
    rest = f'<tr><td colspan="{len(columns)}">and {left} more</td></tr>' if left else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}{rest}</tbody></table>"


def folded(title: str, text: str) -> str:
    """Returns a text that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def curve(values: Sequence[float]) -> str:
    """Returns a small picture of how a figure went, an empty text for fewer than two that are finite."""
    step = max(1, len(values) // _WIDTH)
    points = [(index, value) for index, value in enumerate(values) if index % step == 0 and abs(value) < float("inf")]
    if len(points) < 2:
        return ""
    lowest, highest = min(value for _, value in points), max(value for _, value in points)
    spread = (highest - lowest) or 1.0
    drawn = " ".join(
        f"{index / (len(values) - 1) * _WIDTH:.1f},{(highest - value) / spread * _HEIGHT:.1f}"
        for index, value in points
    )
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="-2 -2 {_WIDTH + 4} {_HEIGHT + 4}" role="img">'
        f'<polyline points="{drawn}" fill="none" stroke="currentColor"/></svg>'
    )


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
