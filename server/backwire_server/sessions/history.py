"""What the last steps of a session gave: loss, gradient norm and learning rate, for those who look on."""

import secrets
import time
from dataclasses import dataclass
from struct import Struct

from backwire_server.sessions.calls import Answered, ForwardResult, StepResult, TrainResult

KEPT = 512
"""How many steps are kept of a session."""

SHORT = 16
"""How many there is room for at first, and how many stay once there are too many sessions with more."""

_RECORD = Struct("<qq?dddd")
_TAG_LENGTH = 8
_LONGEST_NUMBER = 18  # digits


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A Step or TrainStep that was done: the step number after it, and when it was done, in seconds since 1970.

    The loss is that of the last pass in training; None when there was none since the process started.
    """

    step: int
    loss: float | None
    gradient_norm: float
    learning_rate: float
    time: float


class History:
    """The figures of a session since its process started. One thread at a time writes, any may read meanwhile.

    A step costs the packing of some numbers into memory that is mostly there already, all at once, so that who reads
    needs no lock. Memory doubles up to that of KEPT steps, since most of many sessions do few. It is neither part of
    the state nor written to disk.

    Attributes:
        steps: How many steps were done, those that were skipped too.
        loss: The loss of the last pass in training; None for none so far.
        gradient_norm: That of the last step; None for none so far.
        learning_rate: That of the last step; None for none so far.
    """

    __slots__ = ("_ring", "_tag", "gradient_norm", "learning_rate", "loss", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.loss: float | None = None
        self.gradient_norm: float | None = None
        self.learning_rate: float | None = None
        self._ring: bytearray | None = None
        self._tag = ""

    @property
    def long(self) -> bool:
        """Whether it takes more memory than SHORT steps do."""
        return self._ring is not None and len(self._ring) > SHORT * _RECORD.size

    def shorten(self) -> None:
        """Keeps the last SHORT steps alone; for the one thread that writes."""
        if self.long and self._ring is not None:
            self._ring = _resized(self._ring, SHORT)

    def note(self, answer: Answered) -> None:
        """Keeps what a mutation that was just done has answered, if it is a pass or a step."""
        if isinstance(answer, TrainResult):
            self.loss = answer.loss
            self._add(answer.result)
        elif isinstance(answer, StepResult):
            self._add(answer)
        elif isinstance(answer, ForwardResult) and answer.loss is not None:
            self.loss = answer.loss

    def since(self, cursor: str = "") -> tuple[list[StepRecord], str]:
        """Returns the steps after a cursor, oldest first, and the cursor after them.

        Returns all that are kept for an empty cursor, and for one that is not of this history.
        """
        ring, tag = self._ring, self._tag
        if ring is None:
            return [], ""
        after = _number(cursor, tag)
        found = sorted(each for each in _RECORD.iter_unpack(bytes(ring)) if each[0] > after)
        records = [
            StepRecord(step, loss if known else None, norm, rate, moment)
            for _, step, known, loss, norm, rate, moment in found
        ]
        return records, f"{tag}{found[-1][0] if found else after}"

    def _add(self, result: StepResult) -> None:
        ring = self._ring
        if ring is None:
            self._tag = secrets.token_hex(_TAG_LENGTH // 2)
            ring = self._ring = bytearray(SHORT * _RECORD.size)
        loss, norm, rate = self.loss, result.gradient_norm, result.learning_rate
        number = self.steps + 1
        room = len(ring) // _RECORD.size
        if room < KEPT and _RECORD.unpack_from(ring, number % room * _RECORD.size)[0]:
            room *= 2
            ring = self._ring = _resized(ring, room)
        place = number % room * _RECORD.size
        _RECORD.pack_into(ring, place, number, result.step, loss is not None, loss or 0.0, norm, rate, time.time())
        self.steps, self.gradient_norm, self.learning_rate = number, norm, rate


def _resized(ring: bytearray, room: int) -> bytearray:
    """Returns memory for so many records that has the last ones of a ring, each where its number says."""
    found = bytearray(room * _RECORD.size)
    for each in sorted(each for each in _RECORD.iter_unpack(bytes(ring)) if each[0])[-room:]:
        _RECORD.pack_into(found, each[0] % room * _RECORD.size, *each)
    return found


def _number(cursor: str, tag: str) -> int:
    """Returns how many steps a cursor of this tag is after; 0 for any other text."""
    digits = cursor.removeprefix(tag)
    usable = cursor.startswith(tag) and digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_NUMBER
    return int(digits) if usable else 0
