"""Cuts parameter vectors into the stretches that a step works on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from backwire_server.optim.gradients import BLOCK, blocks
from backwire_server.optim.groups import ParameterGroup, check_groups, treatment
from backwire_server.optim.layout import FlatLayout
from backwire_server.optim.rule import Rule


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a parameter vector that one rule updates at one learning rate.

    Attributes:
        dtype: Whose vector it is part of.
        span: Which elements.
        rule: What updates them.
        rate_factor: What the learning rate is multiplied by.
        shape: The shape of the parameter, if the rule must see it whole; None where any piece will do.
    """

    dtype: np.dtype[Any]
    span: slice
    rule: Rule
    rate_factor: float
    shape: tuple[int, ...] | None

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self.span.stop - self.span.start)

    def pieces(self, length: int = BLOCK) -> Iterator[tuple[slice, tuple[int, ...]]]:
        """The pieces to hand to the rule, of at most so many elements where any will do, and their shapes."""
        if self.shape is not None:
            yield self.span, self.shape
            return
        for part in blocks(self.span.start, self.span.stop, length):
            yield part, (part.stop - part.start,)

    def goes_on_with(self, other: "Segment") -> bool:
        """Whether `other` follows directly and both can be updated as one stretch."""
        same = (self.dtype, self.rule, self.rate_factor) == (other.dtype, other.rule, other.rate_factor)
        return same and self.shape is None and self.span.stop == other.span.start

    @property
    def room(self) -> int:
        """The number of elements of the largest piece."""
        return self.size if self.shape is not None else min(self.size, BLOCK)


@lru_cache(maxsize=128)
def segments(layout: FlatLayout, rule: Rule, groups: tuple[ParameterGroup, ...], apart: bool) -> tuple[Segment, ...]:
    """All stretches that are updated, in the order of the vectors; frozen parameters are left out.

    Neighbours with the same treatment become one stretch, unless parameters must stay `apart`. Raises OptimizerError
    when the pattern of a group matches nothing.
    """
    check_groups(groups, layout.slots)
    single = [
        Segment(slot.dtype, slot.span, *treated, slot.shape if treated[0].per_tensor else None)
        for name, slot in layout.slots.items()
        if slot.span.start < slot.span.stop and (treated := treatment(name, slot.shape, rule, groups))
    ]
    single.sort(key=lambda segment: (segment.dtype.itemsize, segment.span.start))
    return tuple(single if apart else _merged(single))


def _merged(single: list[Segment]) -> list[Segment]:
    """Joins neighbours that may be updated together."""
    merged: list[Segment] = []
    for segment in single:
        if merged and merged[-1].goes_on_with(segment):
            merged[-1] = replace(merged[-1], span=slice(merged[-1].span.start, segment.span.stop))
        else:
            merged.append(segment)
    return merged
