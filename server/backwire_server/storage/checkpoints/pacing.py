"""When checkpoints of a session are due: by what its journal has grown since others, and what they take to write."""

from backwire_server.storage.journal.journal import Journal

DUE_BYTES = 128 << 20
DUE_RECORDS = 16_384
"""A checkpoint is due when so many records follow the last, or so many bytes and as many as it has itself."""

WORTH = 20, 4
"""How many times the seconds and the bytes of a passing checkpoint lie between two, in computing and in journal."""

SMALL_BYTES = 256 << 10
"""Up to how many bytes a passing checkpoint is small beside any journal: what it takes to write is not its bytes."""


class Pace:
    """Tells when checkpoints are due. For one thread at a time, but for `took`.

    Attributes:
        took: The seconds that the one which was written last took.
    """

    def __init__(self, journal: Journal, attempted: int, newest: int, due_bytes: int, replay_seconds: float) -> None:
        """Goes on from the record of the last checkpoint that stays, and that of the newest of any kind.

        See `place.Place` for the others.
        """
        self.took = 0.0
        self._journal = journal
        self._due_bytes, self._replay_seconds = due_bytes, replay_seconds
        self._attempted = attempted
        self._grown: int | None = None  # what the journal had grown to at that record, once it is known
        self._newest = newest
        self._passed: int | None = None  # what the journal had grown to at the newest, below 0 for one of before

    def due(self, base_bytes: int) -> bool:
        """Whether the journal has grown far since the last attempt at a checkpoint; the last has so many bytes."""
        journal = self._journal
        if self._grown is None:
            self._grown = journal.grown - journal.segments.bytes_after(self._attempted)
        if journal.last - self._attempted >= DUE_RECORDS:
            return True
        grown = journal.grown - self._grown
        return grown >= self._due_bytes and grown >= base_bytes

    def lags(self, seconds: float, base_bytes: int) -> bool:
        """Whether so many seconds are long for a replay, and a checkpoint of so many bytes is small beside it."""
        if self._passed is None:
            self._passed = self._journal.grown - self._journal.bytes_since(self._newest)
        times, bytes_of_journal = WORTH
        long = seconds >= max(self._replay_seconds, times * self.took)
        return long and (base_bytes <= SMALL_BYTES or self.passed_bytes >= bytes_of_journal * base_bytes)

    @property
    def passed_bytes(self) -> int:
        """What the journal has grown since a checkpoint of any kind was begun; until `lags`, by this process alone.

        For any thread.
        """
        return self._journal.grown - (self._passed or 0)

    def attempt(self) -> None:
        """Notes that a checkpoint of now, which stays, is made, or that it was tried."""
        self._attempted, self._grown = self._journal.last, self._journal.grown

    def begin(self) -> None:
        """Notes that a checkpoint of any kind is begun."""
        self._passed = self._journal.grown
