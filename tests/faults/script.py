"""Seeded training scripts: what a user may do with a session, in an order that nobody would think of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.faults.actor import REFUSALS, Actor, Answer, not_a_number
from tests.faults.mixtures import MIXTURES

NAMES = ("best", "last")
PASSES = ("p", "q", "r")


@dataclass(frozen=True)
class Deed:
    """Something that an actor does: the name of its method, and the arguments."""

    name: str
    arguments: tuple[Any, ...] = ()
    stays: bool = False

    @property
    def piped(self) -> bool:
        """Whether its requests go through a pipeline that goes on after one that failed."""
        return self.name.startswith("pipe")

    def play(self, actor: Actor) -> Answer:
        """Does it, and returns the answer, or the name of the error that it deserves."""
        method = _REFUSED.get(self.name) or MIXTURES.get(self.name) or getattr(type(actor), self.name)
        options = {"stay": self.stays} if self.name == "branch" else {}
        try:
            answer: Answer = method(actor, *self.arguments, **options)
        except REFUSALS as error:
            return (type(error).__name__,)
        return answer


def drawn_script(draw: np.random.Generator, length: int) -> Iterator[Deed]:
    """Yields so many deeds."""
    writer = Writer(draw)
    for _ in range(length):
        yield writer.next()


def tour() -> list[Deed]:
    """Returns a script that has everything, and so comes through all that a server does with its disk."""
    return [
        Deed("train_step", (1,)),
        Deed("save", ("best",)),
        Deed("forward", ("p", 2)),
        Deed("pipe_steps", ([3, 4, 5, 6, 7, 8], 3)),
        Deed("backward", ("p", 2.0, True)),
        Deed("set_parameter", (9,)),
        Deed("step", ("mean",)),
        Deed("branch", ([10, 11],)),
        Deed("fit", ([12, 13, 14],)),
        Deed("save", ("last",)),
        Deed("mark", (15,)),
        Deed("backward", ("p", 1.0, False)),
        Deed("rewind"),
        Deed("repeat"),
        Deed("pipe_passes", ([16, 17], [1.0, 3.0])),
        Deed("restore", ("best",)),
        Deed("forget", ("best",)),
        Deed("under_lease", ([18, 19],)),
        Deed("too_late"),
        Deed("branch", ([20],), stays=True),
        Deed("train_step", (21,)),
        Deed("move"),
        Deed("train_step", (22,)),
    ]


class Writer:
    """Draws deeds, and knows what was done, so that most of what comes next can be done."""

    def __init__(self, draw: np.random.Generator) -> None:
        self._draw = draw
        self._numbers = iter(range(1, 1 << 30))
        self._passes: list[str] = []
        self._marked = False
        self._kinds: dict[Callable[[], Deed], float] = {
            self._train_step: 4,
            self._pipe_steps: 2,
            self._pipe_passes: 2,
            self._fit: 1,
            self._forward: 3,
            self._backward: 3,
            self._step: 2,
            self._set_parameter: 1,
            self._refused: 2,
            self._checkpoint: 2,
            self._restore: 1,
            self._rewind: 2,
            self._branch: 1,
            self._lease: 0.5,
            self._move: 0.5,
            lambda: Deed("repeat"): 1,
            lambda: Deed("zero_gradients"): 0.5,
        }

    def next(self) -> Deed:
        shares = np.array(list(self._kinds.values()))
        return list(self._kinds)[self._draw.choice(len(shares), p=shares / shares.sum())]()

    def _train_step(self) -> Deed:
        return Deed("train_step", (self._batch(), self._weight()))

    def _pipe_steps(self) -> Deed:
        return Deed("pipe_steps", (self._batches(6), int(self._draw.integers(1, 5))))

    def _pipe_passes(self) -> Deed:
        batches = self._batches(3)
        return Deed("pipe_passes", (batches, [self._weight() for _ in batches]))

    def _fit(self) -> Deed:
        return Deed("fit", (self._batches(6),))

    def _forward(self) -> Deed:
        name = self._one_of([name for name in PASSES if name not in self._passes] or PASSES)
        if name not in self._passes:
            self._passes.append(name)
        return Deed("forward", (name, self._batch()))

    def _backward(self) -> Deed:
        if not self._passes:
            return self._forward()
        name, retain = self._one_of(self._passes), bool(self._draw.integers(2))
        if not retain:
            self._passes.remove(name)
        return Deed("backward", (name, self._weight(), retain))

    def _step(self) -> Deed:
        return Deed("step", (self._one_of(("sum", "mean")),))

    def _set_parameter(self) -> Deed:
        return Deed("set_parameter", (self._batch(),))

    def _refused(self) -> Deed:
        return Deed(self._one_of(tuple(_REFUSED)))

    def _checkpoint(self) -> Deed:
        return Deed(self._one_of(("save", "save", "save", "forget")), (self._one_of(NAMES),))

    def _restore(self) -> Deed:
        self._turn_back()
        return Deed("restore", (self._one_of(NAMES),))

    def _rewind(self) -> Deed:
        if not self._marked:
            self._marked = True
            return Deed("mark", (self._batch(),))
        self._turn_back()
        return Deed("rewind")

    def _branch(self) -> Deed:
        stays = bool(self._draw.integers(2))
        if stays:
            self._turn_back()
        return Deed("branch", (self._batches(2),), stays=stays)

    def _lease(self) -> Deed:
        return Deed("under_lease", (self._batches(2),))

    def _move(self) -> Deed:
        self._turn_back()
        return Deed("move")

    def _turn_back(self) -> None:
        self._passes.clear()
        self._marked = False

    def _batch(self) -> int:
        return next(self._numbers)

    def _batches(self, most: int) -> list[int]:
        return [self._batch() for _ in range(self._draw.integers(1, most + 1))]

    def _weight(self) -> float:
        return float(self._draw.choice([0.5, 1.0, 2.0]))

    def _one_of(self, names: Any) -> str:
        return str(names[self._draw.integers(len(names))])


def _too_late(actor: Actor) -> Answer:
    """A step that another was to come before."""
    return actor.step("sum", expected_step=1_000_000)


def _incomplete(actor: Actor) -> Answer:
    actor.session.train_step({"x": actor.task.batch(0)["x"]}, request_id=actor.new_id())
    return ("an input may be missing",)


def _not_finite(actor: Actor) -> Answer:
    actor.session.train_step(not_a_number(actor.task.batch(0)), request_id=actor.new_id())
    return ("not a number is trained on",)


def _misshapen(actor: Actor) -> Answer:
    actor.session.set_parameters({actor.task.parameter: [1.0]}, request_id=actor.new_id())
    return ("a parameter may have another shape",)


def _unknown(actor: Actor) -> Answer:
    actor.restore("never")
    return ("nothing is restored",)


_REFUSED: dict[str, Callable[[Actor], Answer]] = {
    "too_late": _too_late,
    "incomplete": _incomplete,
    "not_finite": _not_finite,
    "misshapen": _misshapen,
    "unknown": _unknown,
}
"""Calls that are refused, and change nothing."""
