"""The journal of a session: its accepted mutations, numbered from 1 over all segments. See docs/storage.md."""

from collections.abc import Sequence
from pathlib import Path

from backwire_server.sessions.errors import StorageFailed
from backwire_server.sessions.keeping.durable import Loss, Mutation
from backwire_server.sessions.scope import UNBOUNDED, CallScope
from backwire_server.storage.disk import Usage, failed, storage_errors
from backwire_server.storage.journal.boots import UNKNOWN, Boots
from backwire_server.storage.journal.group_commit import GroupCommit
from backwire_server.storage.journal.mutations import encode_mutation
from backwire_server.storage.journal.power_loss import go_back
from backwire_server.storage.journal.replay import Part, Replay
from backwire_server.storage.journal.segment import Segment, framed
from backwire_server.storage.journal.segment_scan import is_empty
from backwire_server.storage.journal.segments import Segments
from backwire_server.storage.journal.tail import Tail

LONG_RECORDS, LONG_BYTES = 1_024, 32 << 20
"""From when on a segment takes long to read for the sake of its end."""


class Journal:
    """All segments of one session. For one thread at a time, but for `wait` and `prune`.

    Files are opened when they are needed, and a torn tail is cut then. With `sync` records are flushed by `wait`.

    Attributes:
        segments: Those that there are on the disk.
        grown: The bytes of all records that this process has appended.
    """

    def __init__(
        self,
        directory: Path,
        session_id: str,
        ancestors: Sequence[str],
        usage: Usage,
        *,
        sync: bool,
        boots: Boots = UNKNOWN,
        assured: int = 0,
    ) -> None:
        """Lists the segments, which have the record of the number `assured`; raises OSError when it cannot."""
        self._session_id = session_id
        self.segments = Segments(directory, session_id, ancestors, usage, boots)
        self._usage = usage
        self._sync = sync
        self._commit = GroupCommit(usage.tally)
        self._tail = Tail(self.segments, session_id, usage, self._commit, sync=sync, assured=assured)
        self.grown = 0

    @property
    def broken(self) -> bool:
        """Whether a write or a flush failed after which it is not known what is on the disk."""
        return self._commit.broken

    def check(self) -> None:
        """Raises StorageFailed if it is broken."""
        self._commit.check()

    def fail(self, error: StorageFailed) -> None:
        """Breaks it."""
        self._commit.fail(error)

    def begin(self, first: int) -> None:
        """Makes the first segment, for records from this number on; raises StorageFailed."""
        with storage_errors("the journal could not be begun"):
            self._tail.begin(first)

    def append(self, mutation: Mutation) -> int:
        """Writes a record and returns its number; raises StorageFailed or DiskQuotaExceeded, with none written."""
        self.check()
        segment = self._tail.opened()
        number = self.last + 1
        record = framed(encode_mutation(number, mutation))
        nbytes = sum(map(len, record))
        self._usage.take(self._session_id, nbytes)
        self._usage.tally.writing.begin(nbytes)
        try:
            segment.append(record)
        except BaseException as error:
            self._usage.give(self._session_id, nbytes)
            self._undo(segment)
            if isinstance(error, OSError):
                self._usage.tally.journal_failed(error)
                raise failed("the mutation could not be written to the journal", error) from error
            raise
        finally:
            self._usage.tally.writing.end()
        self._tail.wrote(number)
        self.grown += nbytes
        self._usage.tally.appended(nbytes)
        self._commit.wrote(number, nbytes)
        return number

    def wait(self, number: int, scope: CallScope) -> None:
        """Returns when the record of this number is as durable as it is to be; see `GroupCommit.wait`."""
        self.check()
        if self._sync:
            self._commit.wait(number, self._flush, scope)

    def secure(self, record: int) -> None:
        """Returns when the records up to this number are on the disk, also where `wait` does not see to that.

        What is kept for longer than the journal counts on them: a later record must never get the number of one that
        was lost. Raises StorageFailed. For a thread beside which nobody prunes.
        """
        if self._sync:
            self.wait(record, UNBOUNDED)
            return
        with storage_errors("the journal could not be flushed"):
            for first in [each for each in self.segments.firsts if each <= record]:
                self.segments.secure(first, self._tail.end_of(first))

    @property
    def last(self) -> int:
        """The number of the last record, 0 for none; raises SessionQuarantined when it must be read and cannot be."""
        return self._tail.last

    @property
    def loss(self) -> Loss | None:
        """What a loss of power was found to have taken."""
        return self._tail.loss

    @property
    def is_long(self) -> bool:
        """Whether the last segment is; raises what `last` raises, and StorageFailed."""
        return self.last + 1 - self.segments.firsts[-1] >= LONG_RECORDS or self._tail.opened().end >= LONG_BYTES

    def follows(self, record: int) -> bool:
        """Tells whether there are records after the one of this number; looks at sizes where it was not read yet."""
        if self._tail.known:
            return self.last > record
        if not self.segments.firsts:
            return True
        newest = self.segments.firsts[-1]
        return newest > record + 1 or not is_empty(self.segments.path(newest))

    def bytes_since(self, record: int) -> int:
        """Returns about the bytes of the records after this one, by their share of the segments that have them."""
        return self.segments.bytes_since(record, self.last)

    def replay(self, record: int, *, within: bool = False) -> Replay:
        """Returns the mutations after the record of this number, with which a segment must have ended but for `within`.

        Raises SessionQuarantined, also while they are read; what a segment was written under is compared with what
        this process is, and logged when it differs.
        """
        parts: list[Part] = []
        for each in self.segments.after(record, self._tail.scan, within=within):
            if each.first == self.segments.firsts[-1]:
                self._tail.found(each.first, each.scan, parts[-1].boot if parts else "")
            elif self._tail.segment is None and not self._sync:
                self.segments.doubted.add(each.first)  # as in `found`: it may have ended for a checkpoint that failed
            parts.append(each)
        return Replay(parts)

    def go_back(self, record: int, assured: int) -> bool:
        """Goes back before what a loss of power tore after a record; see `power_loss`. Tells whether it was that."""
        with storage_errors(f"the journal in {self.segments.directory} could not be mended"):
            loss = go_back(self.segments, record, assured)
        if loss is not None:
            self._tail.lose(loss)
        return loss is not None

    def rotate(self) -> int:
        """Begins a new segment unless the last has no record, and returns the number of the last record.

        Raises StorageFailed with nothing changed.
        """
        self.check()
        before, last = self._tail.opened(), self.last
        if self.segments.firsts[-1] == last + 1:
            return last
        with self._commit.alone():
            if self._sync:
                self._commit.flush_now(before.flush)
            with storage_errors("a new segment of the journal could not be begun"):
                self._tail.begin(last + 1)
            before.close()
        return last

    def close(self) -> None:
        """Flushes what is to be flushed and closes the file; raises StorageFailed when that could not be flushed."""
        with self._commit.alone():
            segment = self._tail.close()
            if segment is None:
                return
            try:
                if self._sync and not self.broken:
                    self._commit.flush_now(segment.flush)
            finally:
                segment.close()

    def _undo(self, segment: Segment) -> None:
        try:
            segment.undo()
        except OSError as error:
            self.fail(failed("a record was written in part, and could not be removed from the journal", error))

    def _flush(self) -> None:
        segment = self._tail.segment
        if segment is not None:
            segment.flush()
