"""Dynamic loss scaling: what is differentiated is made larger, so that gradients stay within float16.

What lies below 6e-8 is lost in float16, and gradients often do. They are computed of a multiple of the loss, and
divided by it in float32 before they are accumulated; the multiple is a power of two, so neither rounds. It is halved
when gradients are not finite, and doubled when they were for long (Micikevicius et al. 2018).
"""

import math
from dataclasses import dataclass

from backwire_server.sessions.calls import NonFinitePolicy
from backwire_server.sessions.errors import NonFiniteGradient

FIRST = 2.0**16
LARGEST = 2.0**24
PATIENCE = 2_000
"""The steps without an overflow after which a larger multiple is tried."""


@dataclass(frozen=True, slots=True)
class LossScale:
    """The multiple, from 1 on, and how many steps since it changed had finite gradients."""

    value: float = FIRST
    good_steps: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that `after` never leads to."""
        if not (1 <= self.value <= LARGEST and math.frexp(self.value)[0] == 0.5 and 0 <= self.good_steps < PATIENCE):
            raise ValueError(f"a loss scale of {self.value:g} after {self.good_steps} good steps cannot be")

    @property
    def least(self) -> bool:
        """Whether it cannot be made smaller: gradients that overflow now would do so without it."""
        return self.value == 1

    def after(self, *, finite: bool) -> "LossScale":
        """Returns that of the steps that follow one whose gradients were finite, or not."""
        if not finite:
            return LossScale(max(1.0, self.value / 2))
        if self.good_steps + 1 < PATIENCE:
            return LossScale(self.value, self.good_steps + 1)
        return LossScale(min(LARGEST, self.value * 2))


def factor_of(scaling: LossScale | None) -> float:
    """Returns what to multiply by: 1 where nothing is scaled."""
    return 1.0 if scaling is None else scaling.value


def is_skipped(culprit: str | None, policy: NonFinitePolicy, scaling: LossScale | None) -> bool:
    """Tells whether a step is skipped because the gradient of a parameter, the culprit, is not finite.

    While the loss scale can be made smaller, that is for it to mend. Else the policy holds, and NonFiniteGradient is
    raised where that is to reject.
    """
    if culprit is None:
        return False
    if scaling is not None and not scaling.least:
        return True
    if policy is NonFinitePolicy.REJECT:
        raise NonFiniteGradient(
            f"the gradient of parameter {culprit!r} has elements that are NaN or infinite, and nothing was changed; "
            "after Backward read it with GetGradients, and discard it with ZeroGradients; in a TrainStep correct the "
            "batch; or step with another non_finite policy",
            field=f"parameters[{culprit}]",
        )
    return policy is NonFinitePolicy.SKIP
