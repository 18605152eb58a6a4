"""Stories: what befalls a session from its creation to its end, all of it drawn from a seed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tests.faults.tasks import TASKS, Task
from tests.soak.board import ABANDONED, CANCELLED, DROPPED, HOPELESS

NAMES = ("best", "last")
SHORTEST, LONGEST = 8, 40
MOST_PIPED = 6


class StoryId(NamedTuple):
    """Whose story it is: the seed of the soak, the client, its slot for a session, and the how-manieth there."""

    seed: int
    client: int
    slot: int
    number: int

    def __str__(self) -> str:
        return "-".join(map(str, self))


@dataclass(frozen=True)
class Deed:
    """Something that is done to a session.

    Attributes:
        name: The name of what a player does.
        batches: The numbers of the batches that it trains on.
        checkpoint: The name of a checkpoint.
        trouble: What befalls the first attempt, a happening of the board, or nothing.
        after: After how many seconds.
    """

    name: str
    batches: tuple[int, ...] = ()
    checkpoint: str = ""
    trouble: str = ""
    after: float = 0.0


@dataclass(frozen=True)
class Story:
    """A session's task, and the deeds in their order."""

    id: StoryId
    task: Task
    deeds: tuple[Deed, ...]


def drawn_story(id: StoryId, *, durable: bool, most_piped: int = MOST_PIPED) -> Story:  # noqa: A002
    """Returns the story of this id; only sessions that are `durable` have checkpoints.

    A pipeline trains on up to `most_piped` batches.
    """
    draw, deeds, saved = np.random.default_rng(list(id)), [], set[str]()
    numbers = iter(range(1, 1 << 30))
    kinds = ["train"] * 8 + ["pipe"] * 3 + ["passes"] * 3 + ["stay", "switch"] + ["save", "restore"] * durable
    for _ in range(int(draw.integers(SHORTEST, LONGEST))):
        kind = str(draw.choice(kinds))
        if kind in ("save", "restore"):
            name = str(draw.choice(sorted(saved) if kind == "restore" and saved else NAMES))
            kind = kind if name in saved else "save"
            saved.add(name)
            deeds.append(Deed(kind, checkpoint=name))
        elif kind in ("stay", "switch"):
            saved = saved if kind == "stay" else set()
            deeds += [Deed("fork"), Deed(kind)]
        else:
            many = int(draw.integers(1, most_piped + 1)) if kind == "pipe" else 1
            batches = tuple(next(numbers) for _ in range(many))
            deeds.append(Deed(kind, batches, "", *_trouble(draw, kind)))
    return Story(id, TASKS[sum(id) % len(TASKS)], tuple(deeds))


def history(deeds: Iterable[Deed]) -> list[Deed]:
    """Returns those deeds whose training a session has at the end: none that a restore took back."""
    kept: list[Deed] = []
    saved: dict[str, list[Deed]] = {}
    for deed in deeds:
        if deed.batches:
            kept.append(deed)
        elif deed.name == "save":
            saved[deed.checkpoint] = list(kept)
        elif deed.name == "restore":
            kept = list(saved[deed.checkpoint])
        elif deed.name == "switch":
            saved.clear()  # a branch has no checkpoints of its own
    return kept


def _trouble(draw: np.random.Generator, kind: str) -> tuple[str, float]:
    troubles = {"train": (CANCELLED, HOPELESS, DROPPED), "pipe": (ABANDONED,), "passes": ()}[kind]
    if not troubles or draw.random() < 0.6:
        return "", 0.0
    return str(draw.choice(troubles)), float(draw.exponential(0.002))
