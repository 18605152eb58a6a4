"""What all nodes together ask of the storage that they share, in a second and at rest."""

from dataclasses import dataclass

from tests.capacity.checkpoints import lasting, newest
from tests.capacity.costs import Costs
from tests.capacity.fleet import Fleet, Setting

FILES = 6
"""Of a session that has two checkpoints, with a segment each, its definition and its manifest: docs/storage.md."""

FILES_PASSING = 3
"""Of one that trains: its passing checkpoint, and two segments more that begin with one."""

DIRECTORIES = 2
"""Of a session: its own, and the one within whose name tells the owner."""

TAKING, BEATING, FENCING = 4, 3, 1
"""Operations to take a session and release it (list, rename, sync, rename), for a sign of life (create, rename, list),
and to see whose a session is. Reading the sign of another is one more for each."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes and operations a second, by what they are for; and files, directories and bytes that are kept.

    `operations` has `fence` (whose session it is, seen after each journal write), `beat` (signs of life, written),
    `watch` (those of others that a node is asked for, read), `pass` (passing checkpoints) and `sleep` (sessions that
    wake, hibernate and move).
    """

    journal: float
    checkpoints: float
    operations: dict[str, float]
    files: int
    directories: int
    names: float
    kept: float

    @property
    def bandwidth(self) -> float:
        """All bytes that are written in a second."""
        return self.journal + self.checkpoints


def traffic(fleet: Fleet, costs: Costs, setting: Setting, nodes: int) -> Traffic:
    """Returns what sessions that train as they do, and the nodes, ask for."""
    sessions, kinds = len(fleet.kinds), fleet.kinds
    steps = fleet.demand / costs.step[kinds]
    journal = steps * costs.batch[kinds]
    due, made = lasting(costs, setting)[kinds], journal / newest(costs, setting)[kinds]
    passing = float((made - journal / due).sum())
    wakes = (sessions - int(fleet.active.sum())) / setting.asleep_for
    beats = nodes * setting.beats / setting.lease
    return Traffic(
        journal=float(journal.sum()),
        checkpoints=float((made * costs.state[kinds]).sum() + wakes * costs.state[kinds].mean()),
        operations={
            "fence": FENCING * float(steps.sum()),
            "beat": beats * BEATING,
            "watch": beats * min(setting.asked, nodes - 1),
            "pass": passing * costs.passing_calls,
            "sleep": wakes * (costs.swap_calls + TAKING),
        },
        files=sessions * FILES + int(fleet.active.sum()) * FILES_PASSING * setting.passing,
        directories=sessions * DIRECTORIES,
        names=sessions * costs.name,
        kept=float(
            2 * costs.state[kinds].sum() + ((1.5 * due + setting.passing * costs.state[kinds]) * fleet.active).sum()
        ),
    )
