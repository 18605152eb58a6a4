"""What is kept of passes in parts for their Backward, in this process and in helpers.

All of it may be dropped at any time: a part whose pass is not there any more is made again, with the same bits.
"""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import count
from weakref import WeakValueDictionary

from backwire_server.engine.model import Pass

KEPT_BYTES = 256 << 20
"""What a session keeps of passes in its own process, and a helper unless it is told otherwise, at most."""

_NUMBERS = count(1)

LIVE: WeakValueDictionary[int, "Residue"] = WeakValueDictionary()
"""What is known of passes that Backward may still come for, by their numbers."""


class Residue:
    """The parts of a pass that this process has made; it lives as long as somebody may ask for Backward.

    Attributes:
        number: What stands for the pass in helpers.
        most_bytes: Past how many bytes of all passes of the session nothing more is kept of this one.
        passes: The parts that were kept, by their places.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self.number = next(_NUMBERS)
        self.most_bytes = most_bytes
        self.passes: dict[int, Pass] = {}
        LIVE[self.number] = self

    @property
    def nbytes(self) -> int:
        """The bytes of what was kept, without inputs."""
        return sum(kept_bytes(each) for each in self.passes.values())


class Passes:
    """The parts of passes that a helper has made, of which the oldest go when they hold too much.

    Attributes:
        nbytes: The bytes that they hold.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self.nbytes = 0
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[int, int], Pass] = OrderedDict()

    def add(self, number: int, place: int, found: Pass) -> None:
        """Keeps the part at a place of the pass of a number."""
        self._kept[number, place] = found
        self.nbytes += found.nbytes
        while self.nbytes > self._most_bytes:
            self.nbytes -= self._kept.popitem(last=False)[1].nbytes

    def find(self, number: int, place: int) -> Pass | None:
        """Returns the part at a place of the pass of a number; None if it is not there any more."""
        return self._kept.get((number, place))

    def release(self, numbers: Iterable[int]) -> None:
        """Drops all parts of the passes of these numbers."""
        gone = set(numbers)
        for key in [key for key in self._kept if key[0] in gone]:
            self.nbytes -= self._kept.pop(key).nbytes


def kept_bytes(found: Pass) -> int:
    """Returns the bytes that keeping a pass takes besides its inputs."""
    return found.lease.forward.kept_bytes if found.lease else found.nbytes
