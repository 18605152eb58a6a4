"""The journal of a session: its accepted mutations, numbered from 1 over all segments. See docs/storage.md."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backwire_api.v1 import storage_pb2
from backwire_server.sessions.durable import Mutation
from backwire_server.sessions.errors import StorageFailed
from backwire_server.sessions.scope import UNBOUNDED, CallScope
from backwire_server.storage import failpoints
from backwire_server.storage.damage import Damaged
from backwire_server.storage.disk import Usage, damaged, failed, storage_errors, sync_directory, sync_file
from backwire_server.storage.environment import differences, environment, recorded
from backwire_server.storage.group_commit import GroupCommit
from backwire_server.storage.mutations import decode_mutation, encode_mutation
from backwire_server.storage.segment import FORMAT, Segment, file_name, first_number, framed
from backwire_server.storage.segment_scan import Scan, bodies, is_empty, scan

_LOG = logging.getLogger("backwire.storage")

LONG_RECORDS, LONG_BYTES = 1_024, 32 << 20
"""From when on a segment takes long to read for the sake of its end."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The mutations after some record: how many there are, and what reads them."""

    count: int
    mutations: Iterator[Mutation]


class Journal:
    """All segments of one session. For one thread at a time, but for `wait` and `prune`.

    Files are opened when they are needed, and a torn tail is cut then. With `sync` records are flushed by `wait`.

    Attributes:
        grown: The bytes of all records that this process has appended.
    """

    def __init__(self, directory: Path, session_id: str, ancestors: Sequence[str], usage: Usage, *, sync: bool) -> None:
        """Lists the segments; raises OSError when it cannot."""
        self._directory = directory
        self._session_id = session_id
        self._owners = {session_id, *ancestors}
        self._usage = usage
        self._sync = sync
        self._commit = GroupCommit(usage.tally)
        self._mutex = threading.Lock()
        self._firsts = sorted(filter(None, map(first_number, os.listdir(directory))))
        self._segment: Segment | None = None
        self._last: int | None = None  # the number of the last record, and where it ends, once that is known
        self._end = 0
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
            self._segment = self._new_segment(first)
        self._firsts, self._last = [first], first - 1

    def append(self, mutation: Mutation) -> int:
        """Writes a record and returns its number; raises StorageFailed or DiskQuotaExceeded, with none written."""
        self.check()
        segment = self._opened()
        number = self.last + 1
        record = framed(encode_mutation(number, mutation))
        nbytes = sum(map(len, record))
        self._usage.take(self._session_id, nbytes)
        try:
            segment.append(record)
        except BaseException as error:
            self._usage.give(self._session_id, nbytes)
            self._undo(segment)
            if isinstance(error, OSError):
                self._usage.tally.journal_failed()
                raise failed("the mutation could not be written to the journal", error) from error
            raise
        self._last = number
        self.grown += nbytes
        self._usage.tally.appended(nbytes)
        self._commit.wrote(number)
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
            for first in [each for each in self._firsts if each <= record]:
                sync_file(self._path(first))

    @property
    def last(self) -> int:
        """The number of the last record, 0 for none; raises SessionQuarantined when it must be read and cannot be."""
        if self._last is None:
            if not self._firsts:
                raise damaged(self._directory, "there is no segment of a journal")
            self._found(self._firsts[-1], self._scanned(self._firsts[-1]))
        assert self._last is not None
        return self._last

    @property
    def is_long(self) -> bool:
        """Whether the last segment is; raises what `last` raises, and StorageFailed."""
        return self.last + 1 - self._firsts[-1] >= LONG_RECORDS or self._opened().end >= LONG_BYTES

    def follows(self, record: int) -> bool:
        """Tells whether there are records after the one of this number; looks at sizes where it was not read yet."""
        if self._last is not None:
            return self._last > record
        if not self._firsts:
            return True
        newest = self._firsts[-1]
        return newest > record + 1 or not is_empty(self._path(newest))

    def starts_after(self, record: int) -> bool:
        """Tells whether a segment begins with the record after this one."""
        return record + 1 in self._firsts

    def bytes_after(self, record: int) -> int:
        """Returns the size of the segments that begin after the record of this number, 0 where it cannot be read."""
        try:
            return sum(self._path(first).stat().st_size for first in self._firsts if first > record)
        except OSError:
            return 0

    def bytes_since(self, record: int) -> int:
        """Returns about the bytes of the records after this one, by their share of the segments that have them."""
        begin = max((each for each in self._firsts if each <= record + 1), default=record + 1)
        after, records = self.last - record, self.last - begin + 1
        return self.bytes_after(begin - 1) * after // records if records > 0 else 0

    def replay(self, record: int, *, within: bool = False) -> Replay:
        """Returns the mutations after the record of this number, with which a segment must have ended but for `within`.

        Raises SessionQuarantined, also while they are read; what a segment was written under is compared with what
        this process is, and logged when it differs.
        """
        begin = max((each for each in self._firsts if each <= record + 1), default=0) if within else record + 1
        if begin not in self._firsts:
            raise damaged(self._path(record + 1), "the file is missing")
        found: list[tuple[Path, int, Sequence[tuple[int, int]]]] = []
        expected = begin
        for first in [each for each in self._firsts if each >= begin]:
            if first != expected:
                raise damaged(self._path(first), f"the journal has a gap: the record before it is {expected - 1}", 0)
            each = self._scanned(first)
            known = max(0, record + 1 - first)
            if known > len(each.spans):
                raise damaged(self._path(first), f"it lacks records up to {record}, which a checkpoint has", 0)
            found.append((self._path(first), first + known, each.spans[known:]))
            expected += len(each.spans)
            if first == self._firsts[-1]:
                self._found(first, each)
        return Replay(expected - record - 1, _mutations(found))

    def rotate(self) -> int:
        """Begins a new segment unless the last has no record, and returns the number of the last record.

        Raises StorageFailed with nothing changed.
        """
        self.check()
        before, last = self._opened(), self.last
        if self._firsts[-1] == last + 1:
            return last
        with self._commit.alone():
            if self._sync:
                self._commit.flush_now(before.flush)
            with storage_errors("a new segment of the journal could not be begun"):
                segment = self._new_segment(last + 1)
            self._segment = segment
            before.close()
        with self._mutex:
            self._firsts = [*self._firsts, last + 1]
        return last

    def complete(self) -> list[Path]:
        """Returns the segments that nothing will be appended to, oldest first."""
        return [self._path(first) for first in self._firsts[:-1]]

    def prune(self, record: int) -> None:
        """Removes the segments that have no record after the one of this number; raises OSError."""
        with self._mutex:
            while len(self._firsts) > 1 and self._firsts[1] <= record + 1:
                failpoints.hit("prune.segment")
                path = self._path(self._firsts[0])
                nbytes = path.stat().st_size
                path.unlink()
                self._usage.give(self._session_id, nbytes)
                self._firsts = self._firsts[1:]

    def close(self) -> None:
        """Flushes what is to be flushed and closes the file; raises StorageFailed when that could not be flushed."""
        with self._commit.alone():
            segment, self._segment = self._segment, None
            if segment is None:
                return
            self._end = segment.end
            try:
                if self._sync and not self.broken:
                    self._commit.flush_now(segment.flush)
            finally:
                segment.close()

    def _path(self, first: int) -> Path:
        return self._directory / file_name(first)

    def _scanned(self, first: int) -> Scan:
        path = self._path(first)
        with storage_errors(f"{path} could not be read"):
            try:
                found = scan(path, last=first == self._firsts[-1])
            except FileNotFoundError:
                raise damaged(path, "the file is missing") from None
        if found.header is None:
            return found
        if found.header.session_id not in self._owners:
            raise damaged(path, f"it belongs to another session, {found.header.session_id!r}", 0)
        if found.spans and (changed := differences(found.header.environment, environment())):
            _LOG.warning("%s was written under conditions in which bits may differ: %s", path, changed)
        return found

    def _found(self, first: int, found: Scan) -> None:
        """Notes what the last segment has, and cuts the rest."""
        if self._segment is not None:
            return
        self._last, self._end = first - 1 + len(found.spans), found.end
        self._commit.wrote(self._last)
        if found.torn:
            _LOG.warning(
                "%s: %d bytes of a record were cut whose writing was interrupted", self._path(first), found.torn
            )
            self._usage.give(self._session_id, found.torn)
        if found.torn or found.header is None or (self._sync and found.spans):
            self._opened()

    def _opened(self) -> Segment:
        """Returns the last segment, opened; what others wrote to it is flushed, as nobody knows whether they did."""
        last = self.last
        if self._segment is None:
            first = self._firsts[-1]
            with storage_errors("the journal could not be opened"):
                self._segment = self._headed(first) if self._end == 0 else Segment(self._path(first), self._end)
            if self._sync and last >= first:
                self._commit.flush_now(self._segment.flush)
        return self._segment

    def _new_segment(self, first: int) -> Segment:
        """Returns a new segment; leaves none behind when it cannot be made."""
        try:
            return self._headed(first)
        except BaseException:
            try:
                self._path(first).unlink(missing_ok=True)
            except OSError as error:
                self.fail(failed("an unfinished segment of the journal could not be removed", error))
            raise

    def _headed(self, first: int) -> Segment:
        header = storage_pb2.JournalHeader(
            format=FORMAT, session_id=self._session_id, first_number=first, environment=recorded()
        )
        header.create_time.FromNanoseconds(time.time_ns())
        segment = Segment(self._path(first), 0)
        try:
            segment.begin(header)
            if self._sync:
                segment.flush()
                sync_directory(self._directory)
        except BaseException:
            segment.close()
            raise
        self._usage.take(self._session_id, segment.end, checked=False)
        self._usage.tally.began_segment()
        return segment

    def _undo(self, segment: Segment) -> None:
        try:
            segment.undo()
        except OSError as error:
            self.fail(failed("a record was written in part, and could not be removed from the journal", error))

    def _flush(self) -> None:
        segment = self._segment
        if segment is not None:
            segment.flush()


def _mutations(segments: Sequence[tuple[Path, int, Sequence[tuple[int, int]]]]) -> Iterator[Mutation]:
    for path, first, spans in segments:
        for expected, (data, span) in enumerate(zip(bodies(path, spans), spans, strict=True), first):
            try:
                number, mutation = decode_mutation(data)
            except Damaged as error:
                raise damaged(path, str(error), span[0]) from None
            if number != expected:
                raise damaged(path, f"it has record {number} where {expected} should be", span[0])
            yield mutation
