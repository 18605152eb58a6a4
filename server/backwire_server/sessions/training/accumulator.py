"""The gradients that wait for the next step."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto

import numpy as np

from backwire_server.optim import FlatLayout, Vectors, Views
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.training.versions import Array, Version, Versioned


class ContributionsMissing(Exception):
    """Fewer gradients were accumulated than the step is to wait for; nothing was changed."""


class Normalization(Enum):
    """How contributions become one gradient."""

    SUM = auto()
    MEAN = auto()


class Accumulator:
    """The sum of weighted gradients since it was last cleared. For one thread at a time.

    Attributes:
        contributions: How many gradients were added.
        total_weight: The sum of their weights.
    """

    def __init__(self, layout: FlatLayout) -> None:
        self.contributions = 0
        self.total_weight = 0.0
        self._values = Versioned(Version(layout, layout.zeros()))

    @property
    def current(self) -> Version:
        """The sums; what is in it has no meaning while there are no contributions."""
        return self._values.current

    def room(self, weight: float) -> Views:
        """Arrays that the next gradients may be computed in before `add` is called with them; none if it must add."""
        if self.contributions or weight != 1 or self._values.current.holders:
            return Views()
        return self._values.current.arrays

    def add(self, gradients: Mapping[str, Array], weight: float) -> None:
        """Adds `weight * gradient` for each parameter; those that are absent have a gradient of zeros.

        Raises InvalidRequest when the weights no longer have a finite sum. All memory is taken before the first write.
        """
        total = self.check(weight)
        with np.errstate(all="ignore"):
            addends = gradients if weight == 1 else {name: array * weight for name, array in gradients.items()}
            with self._values.writing() as version:
                for name, values in version.arrays.items():
                    if not self.contributions:
                        if (addend := addends.get(name, 0)) is not values:
                            np.copyto(values, addend)
                    elif name in addends:
                        np.add(values, addends[name], out=values)
        self.contributions += 1
        self.total_weight = total

    def check(self, weight: float) -> float:
        """Returns what the weights sum up to with this one; raises InvalidRequest when that is not finite."""
        total = self.total_weight + weight
        if not math.isfinite(total):
            raise InvalidRequest(
                f"with a weight of {weight:g} the weights have no finite sum; use less", field="weight"
            )
        return total

    def clear(self) -> None:
        """Discards what was added."""
        self.contributions, self.total_weight = 0, 0.0

    def combined(self, normalization: Normalization) -> Vectors:
        """The gradient to step with. Not to be written to."""
        vectors = self._values.current.vectors
        if normalization is Normalization.SUM:
            return vectors
        with np.errstate(all="ignore"):
            return {dtype: vector / self.total_weight for dtype, vector in vectors.items()}

    def restore(self, gradients: Mapping[str, Array], contributions: int, total_weight: float) -> None:
        """Makes copies of these gradients what was accumulated."""
        self.clear()
        if contributions:
            self.add(gradients, 1.0)
        self.contributions, self.total_weight = contributions, total_weight

    @contextmanager
    def tentative(self) -> Iterator[None]:
        """Undoes what the block added or cleared when it ends with an exception."""
        contributions, total_weight = self.contributions, self.total_weight
        before = self._values.current
        if contributions:
            before.hold()
        try:
            yield
        except BaseException:
            self.contributions, self.total_weight = contributions, total_weight
            self._values.current = before
            raise
        finally:
            if contributions:
                before.release()


def check_weight(weight: float) -> None:
    """Raises InvalidRequest for what no contribution can count."""
    if not (math.isfinite(weight) and weight > 0):
        raise InvalidRequest(f"the weight is {weight:g}; give a finite number above 0", field="weight")
