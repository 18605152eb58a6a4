"""Checks of the figures of optimizers and schedules, so that a wrong one is found where it was written."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from backwire._errors import OptimizerError

Range = tuple[Callable[[float], bool], str]
"""Whether a figure belongs to the range, and the range in words."""

NOT_NEGATIVE: Range = (lambda figure: figure >= 0, "0 or more")
POSITIVE: Range = (lambda figure: figure > 0, "above 0")
POSITIVE_OR_NONE: Range = (lambda figure: figure > 0, "above 0, or None")
SHARE: Range = (lambda figure: 0 <= figure <= 1, "in [0, 1]")
DECAY: Range = (lambda figure: 0 <= figure < 1, "in [0, 1)")
AT_LEAST_ONE: Range = (lambda figure: figure >= 1, "1 or more")
COUNT: Range = (lambda figure: isinstance(figure, int) and figure >= 1, "a whole number, 1 or more")
COUNT_OR_ZERO: Range = (lambda figure: isinstance(figure, int) and figure >= 0, "a whole number, 0 or more")


def check_figures(owner: Any, ranges: Mapping[str, Range], path: str) -> None:
    """Raises OptimizerError for the first field of a dataclass that is not within its range; None always is."""
    for field in fields(owner):
        value = getattr(owner, field.name)
        if field.name in ranges and value is not None:
            holds, range_ = ranges[field.name]
            if not (isinstance(value, int | float) and math.isfinite(value) and holds(value)):
                raise OptimizerError(
                    f"{type(owner).__name__}: {field.name} is {value}, but must be {range_}",
                    field=f"{path}.{field.name}",
                )
