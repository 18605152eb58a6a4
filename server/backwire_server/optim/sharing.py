"""Work on long vectors whose stretches may be worked on in any order, and several at the same time."""

from collections.abc import Callable, Sequence
from typing import Protocol

Task = Callable[[int], None]
"""Works on a stretch; told the number of the hand that does it, which has working memory of its own."""


class Hands(Protocol):
    """What does tasks."""

    @property
    def count(self) -> int:
        """How many tasks are done at the same time at most."""

    def share(self, tasks: Sequence[Task]) -> None:
        """Does each task once, in any order, and returns when all are done; raises what one of them raises."""


class _Alone:
    count = 1

    def share(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            task(0)


ALONE: Hands = _Alone()
"""The one hand of whoever asks."""
