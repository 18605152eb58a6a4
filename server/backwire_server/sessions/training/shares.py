"""What the parts of a batch take of what a call may compute: all of it is admitted with the first, the largest."""

from dataclasses import replace

from backwire_server.engine.cost import Admit, Cost
from backwire_server.sessions.training.working import Working


class Share:
    """Admits all parts of a batch where it is told what the first takes.

    Attributes:
        nbytes: The most that one part takes, at least what is given at first: of passes that were kept, others have to
            make theirs.
    """

    def __init__(self, working: Working, times: float, nbytes: int) -> None:
        self._working, self._times, self.nbytes = working, times, nbytes

    def __call__(self, cost: Cost) -> None:
        """As `Working`, of all parts."""
        self.nbytes = max(self.nbytes, cost.nbytes)
        self._working(replace(cost, flops=round(cost.flops * self._times), nbytes=round(cost.nbytes * self._times)))


def paid(admit: Admit, cost: Cost) -> None:
    """Admits a pass that is made again: who asked has paid for it."""
    admit(replace(cost, flops=0))


def admitted(_: Cost) -> None:
    """Admits a part that was admitted with the first."""
