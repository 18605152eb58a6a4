"""What befalls connections, and when: faults of a script, in the bytes that go either way."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np

FRAME_HEADER_BYTES, DATA_FRAME = 9, 0

Kind = Literal["cut", "lose", "delay", "kill"]


class Way(Enum):
    """Where bytes go."""

    UP = "to the server"
    DOWN = "to the client"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens once, after so many more bytes went a way, over all connections together.

    There the connection is cut, by a reset if `reset` is set; or what follows is delayed by `seconds`; or the server is
    killed. To `lose` is to pass so many answers of the server on and to cut the connection instead of passing the next:
    the server has done what was asked.
    """

    kind: Kind
    after: int
    way: Way = Way.DOWN
    reset: bool = False
    seconds: float = 0.0


def drawn_faults(draw: np.random.Generator, kinds: Iterable[Kind], nbytes: float) -> Iterator[Fault]:
    """Yields faults of these kinds for ever, so many bytes apart on average; answers have 200 on average."""
    known = list(kinds)
    while True:
        kind = known[draw.integers(len(known))]
        way = Way.DOWN if kind == "lose" else (Way.UP, Way.DOWN)[draw.integers(2)]
        after = int(draw.exponential(nbytes / 200 if kind == "lose" else nbytes))
        yield Fault(kind, after, way, bool(draw.integers(2)), float(draw.uniform(0.0, 0.02)))


class Script:
    """Which fault is next, and how far it is. May be used by several threads at once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = iter(faults)
        self._mutex = threading.Lock()
        self._next: Fault | None = None
        self._left = 0
        self._advance()

    @property
    def over(self) -> bool:
        """Whether all faults have happened."""
        return self._next is None

    def meet(self, way: Way, begin: int, end: int, answers: list[int]) -> tuple[int, Fault | None]:
        """Tells how far bytes from `begin` to `end` may go a way, and what happens there; None at their end.

        `answers` is where among them answers begin.
        """
        with self._mutex:
            fault = self._next
            if fault is None or fault.way is not way:
                return end, None
            if fault.kind == "lose":
                stops = [place for place in answers if place >= begin]
                passed = len(stops)
                found = stops[self._left] if self._left < len(stops) else None
            else:
                passed = end - begin
                found = begin + self._left if self._left <= passed else None
            if found is None:
                self._left -= passed
                return end, None
            self._advance()
            return found, fault

    def _advance(self) -> None:
        self._next = next(self._faults, None)
        self._left = self._next.after if self._next else 0


class Answers:
    """Finds where the answers of a gRPC server begin in a connection: at the DATA frames of HTTP/2."""

    def __init__(self) -> None:
        self._header = b""
        self._payload = 0

    def within(self, data: bytes) -> list[int]:
        """Returns the places in the next bytes of the connection; one that began before them is at 0."""
        places, at = [], 0
        while at < len(data):
            if self._payload:
                skipped = min(self._payload, len(data) - at)
                self._payload -= skipped
                at += skipped
                continue
            begin, missing = at - len(self._header), FRAME_HEADER_BYTES - len(self._header)
            self._header += data[at : at + missing]
            at += missing
            if len(self._header) == FRAME_HEADER_BYTES:
                length, kind = int.from_bytes(self._header[:3], "big"), self._header[3]
                self._header, self._payload = b"", length
                if kind == DATA_FRAME and length:
                    places.append(max(0, begin))
        return places
