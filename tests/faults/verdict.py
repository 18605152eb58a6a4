"""What came out of rounds, and how a session is compared with the oracle's."""

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.actor import Actor
from tests.faults.oracle import Oracle
from tests.faults.script import Deed

ANSWER_CHARACTERS = 400


@dataclass
class Verdict:
    """What happened in rounds, and what was wrong.

    Attributes:
        happened: How often each fault did.
        lost: States that lacked an acknowledged mutation.
        doubled: States in which a mutation was applied twice.
        differing: States and answers that were others than the oracle's, and calls that failed.
        told: What each of these was.
    """

    happened: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    told: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all was as it must be."""
        return not self.told

    def wrong(self, kind: str, what: str) -> None:
        """Counts something as `lost`, `doubled` or `differing`, and tells what it was."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.told.append(f"{kind}: {what}")

    def add(self, other: "Verdict") -> None:
        """Counts another's in."""
        self.happened.update(other.happened)
        self.lost += other.lost
        self.doubled += other.doubled
        self.differing += other.differing
        self.told += other.told


class Judge:
    """Compares an actor with the oracle, deed by deed."""

    def __init__(self, verdict: Verdict, actor: Actor, oracle: Oracle) -> None:
        """Begins with sessions that are new."""
        self._verdict = verdict
        self._actor = actor
        self._oracle = oracle
        self._digests = [oracle.digest()]

    def do(self, deed: Deed) -> bool:
        """Has both do it; tells whether the same came out."""
        answer = deed.play(self._actor)
        self._oracle.rewound = answer != ("CheckpointNotFoundError",)
        expected = deed.play(self._oracle)
        self._digests.append(self._oracle.digest())
        same = repr(answer) == repr(expected)  # which tells all digits, and a loss may be NaN
        if not same:
            self._verdict.wrong("differing", f"{deed} was answered {_short(answer)}, not {_short(expected)}")
        return self.compare(str(deed)) and same

    def compare(self, when: str) -> bool:
        """Tells whether both have the same state."""
        found, expected = self._actor.digest(), self._digests[-1]
        if found == expected:
            return True
        step, right = self._actor.session.info().step, self._oracle.session.info().step
        kind = "lost" if found in self._digests else "doubled" if step > right else "differing"
        self._verdict.wrong(kind, f"after {when} the state is {found} of step {step}, not {expected} of step {right}")
        return False


def _short(answer: object) -> str:
    return str(answer)[:ANSWER_CHARACTERS]
