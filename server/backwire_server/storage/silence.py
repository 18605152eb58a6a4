"""For how long a disk has neither written nor failed, as a mount over a network may: nothing else tells of that."""

import threading
import time

LONG_SECONDS = 5.0
"""How long a write to a journal, or a flush of one, may take before the disk is said to hang."""

SLOW_BYTES = 10_000_000
"""What a disk that is slow writes in a second; so much longer what it is given may take."""

LATELY_SECONDS = 600.0
"""How long it counts that something took long: twice that is then no sign of a disk that hangs."""

MOST_SECONDS = 30.0
"""How long it may take at most, whatever took long lately."""


class Progress:
    """What goes on of one kind, such as flushes. May be used by several threads at once.

    As long as anything comes to an end now and then, the disk is slow, and does not hang. Kinds are kept apart, since
    where flushes hang writes may go on for long, to memory.
    """

    __slots__ = ("_ended", "_going", "_slow")

    def __init__(self) -> None:
        self._going: dict[int, tuple[float, int]] = {}
        self._ended = 0.0
        self._slow: list[tuple[float, float]] = []
        """What took long, and when it ended, as far as nothing has taken as long since then."""

    def begin(self, nbytes: int) -> None:
        """Notes that this thread has the disk do something with so many bytes, until `end`."""
        self._going[threading.get_ident()] = time.monotonic(), nbytes

    def end(self) -> None:
        """Notes that it was done, or failed."""
        self._ended = time.monotonic()
        began, nbytes = self._going.pop(threading.get_ident(), (self._ended, 0))
        took = self._ended - began - nbytes / SLOW_BYTES
        if 2 * took > LONG_SECONDS:
            since = self._ended - LATELY_SECONDS
            self._slow = [each for each in self._slow if each[0] > took and each[1] > since] + [(took, self._ended)]

    @property
    def silence(self) -> float:
        """For how many seconds something goes on while nothing ends, 0 as long as that is not long for its bytes.

        A disk that was slow lately has twice as long as that took: else it would be found to hang again and again.
        """
        going = list(self._going.values())
        if not going:
            return 0.0
        now = time.monotonic()
        lasted = now - max(self._ended, min(began for began, _ in going))
        slowest = max((took for took, ended in self._slow if now < ended + LATELY_SECONDS), default=0.0)
        patience = max(LONG_SECONDS, min(2 * slowest, MOST_SECONDS))
        return lasted if lasted >= patience + sum(nbytes for _, nbytes in going) / SLOW_BYTES else 0.0
