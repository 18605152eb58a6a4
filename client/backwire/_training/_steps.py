"""Watches that a session goes on from step to step, for loops that read the results of their own steps in order."""

import warnings
from typing import TypeVar

from backwire._info import StepResult

R = TypeVar("R", bound=StepResult)


class Steps:
    """The last step that a loop knows of; None before the first."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last

    def noted(self, result: R) -> R:
        """Takes in the next result and returns it; warns where the session was taken back since the one before."""
        if self.last is not None and result.step < self.last + (not result.skipped):
            self._warn(f"at step {result.step} after the next one")
        self.last = result.step
        return result

    def found(self, step: int) -> None:
        """Takes in where the session is between two steps of the loop; warns as `noted`."""
        if self.last is not None and step < self.last:
            self._warn(f"is at step {step} before the next one")
        self.last = step

    def _warn(self, where: str) -> None:
        warnings.warn(
            f"the session was at step {self.last}, and {where}: another client or a callback took it back, or its "
            "server's machine lost power, after which a session of durability 'journal' goes on without its last steps",
            RuntimeWarning,
            stacklevel=4,
        )
