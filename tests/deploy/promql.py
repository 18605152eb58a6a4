"""Reads expressions of PromQL as far as names go: metrics, labels, and the values that labels are compared with."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

FROM_PROMETHEUS = {"up": frozenset({"job", "instance"})}
"""The labels of what Prometheus itself knows of each target."""

OF_TARGETS = frozenset({"job", "instance"})
"""The labels that Prometheus gives to all series of a target."""

_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*(\"(?:[^\"\\]|\\.)*\")")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_WORDS = {"and", "or", "unless", "offset", "bool", "atan2", "inf", "nan"}
_AGGREGATIONS = {"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "group", "stddev"}


@dataclass(frozen=True, slots=True)
class Names:
    """What an expression names.

    Attributes:
        metrics: The names of its series.
        labels: The labels that it selects and groups by.
        values: What each label is compared with, the parts of an alternative one by one.
    """

    metrics: frozenset[str]
    labels: frozenset[str]
    values: dict[str, frozenset[str]]


def names(expression: str) -> Names:
    """Returns what an expression names; it may be one that does not parse, since nothing but names is looked for."""
    matchers = [
        (label, value[1:-1])
        for _, inside in _SELECTOR.findall(expression)
        for label, _, value in _MATCHER.findall(inside)
    ]
    grouped = {label.strip() for inside in _GROUPING.findall(expression) for label in inside.split(",")} - {""}
    values: dict[str, set[str]] = {}
    for label, value in matchers:
        values.setdefault(label, set()).update(value.split("|"))
    return Names(
        frozenset(_metrics(expression)),
        frozenset(grouped | set(values)),
        {label: frozenset(each) for label, each in values.items()},
    )


def _metrics(expression: str) -> set[str]:
    """Returns the identifiers that are neither functions, words, labels, durations nor variables."""
    text = _STRING.sub('""', expression)
    text = _GROUPING.sub(" ", text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset\s+\w+", " ", text)
    found = re.findall(r"(?<![\w$.])([a-zA-Z_:][\w:]*)(?!\w)(?!\s*\()", text)
    return set(found) - _WORDS - _AGGREGATIONS


def promtool(*arguments: str | Path, status: int = 0) -> str:
    """Returns what promtool prints, which must exit with this status; skips the test where there is no promtool."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed; it comes with Debian's package prometheus")
    ended = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout
