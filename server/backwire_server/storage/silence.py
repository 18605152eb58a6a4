"""For how long a disk has neither written nor failed, as a mount over a network may: nothing else tells of that."""

import threading
import time

LONG_SECONDS = 5.0
"""How long a write to a journal, or a flush of one, may take before the disk is said to hang."""

SLOW_BYTES = 10_000_000
"""What a disk that is slow writes in a second; so much longer what it is given may take."""


class Progress:
    """What goes on of one kind, such as flushes. May be used by several threads at once.

    As long as anything comes to an end now and then, the disk is slow, and does not hang. Kinds are kept apart, since
    where flushes hang writes may go on for long, to memory.
    """

    __slots__ = ("_ended", "_going")

    def __init__(self) -> None:
        self._going: dict[int, tuple[float, int]] = {}
        self._ended = 0.0

    def begin(self, nbytes: int) -> None:
        """Notes that this thread has the disk do something with so many bytes, until `end`."""
        self._going[threading.get_ident()] = time.monotonic(), nbytes

    def end(self) -> None:
        """Notes that it was done, or failed."""
        self._going.pop(threading.get_ident(), None)
        self._ended = time.monotonic()

    @property
    def silence(self) -> float:
        """For how many seconds something goes on while nothing ends, 0 as long as that is not long for its bytes."""
        going = list(self._going.values())
        if not going:
            return 0.0
        lasted = time.monotonic() - max(self._ended, min(began for began, _ in going))
        return lasted if lasted >= LONG_SECONDS + sum(nbytes for _, nbytes in going) / SLOW_BYTES else 0.0
