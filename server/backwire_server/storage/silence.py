"""For how long a disk has neither written nor failed, as a mount over a network may: nothing else tells of that."""

import threading
import time

LONG_SECONDS = 5.0
"""How long a write to a journal, or a flush of one, may take before the disk is said to hang."""


class Writing:
    """The writes that go on, each a block; a class for speed. May be used by several threads at once."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def __enter__(self) -> None:
        self._since[threading.get_ident()] = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since.pop(threading.get_ident(), None)

    @property
    def silence(self) -> float:
        """For how many seconds the one goes on that began first, 0 as long as that is not long."""
        now = time.monotonic()
        lasted = max((now - since for since in list(self._since.values())), default=0.0)
        return lasted if lasted >= LONG_SECONDS else 0.0
