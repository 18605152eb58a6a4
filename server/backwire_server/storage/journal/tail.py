"""The last segment of a journal: where its records end, and what appends to it."""

import logging
from functools import partial

from backwire_server.sessions.keeping.durable import Loss
from backwire_server.storage.disk import Usage, damaged, storage_errors
from backwire_server.storage.journal.group_commit import GroupCommit
from backwire_server.storage.journal.segment import Segment, renew
from backwire_server.storage.journal.segment_scan import Scan, is_empty
from backwire_server.storage.journal.segments import Segments

_LOG = logging.getLogger("backwire.storage")


class Tail:
    """The last of some segments, read and opened when that is needed. For one thread at a time, but for `end_of`.

    A segment has what was written under one boot: what is whole of it under a later one is on the disk, and where
    another follows it, that was so.

    Attributes:
        segment: The segment, as long as it is open.
        known: Whether it is known where its records end.
        loss: What a loss of power was found to have taken.
    """

    def __init__(
        self, segments: Segments, session_id: str, usage: Usage, commit: GroupCommit, *, sync: bool, assured: int
    ) -> None:
        """Knows nothing yet; `commit` is told how far there are records, and of what failed.

        That there is no record of the number `assured` is damage.
        """
        self.segment: Segment | None = None
        self.known = False
        self.loss: Loss | None = None
        self._segments = segments
        self._session_id = session_id
        self._usage = usage
        self._commit = commit
        self._sync = sync
        self._assured = assured
        self._last = 0
        self._end = 0
        self._ended = False  # whether it was written under another boot than this

    @property
    def last(self) -> int:
        """The number of the last record, 0 for none; raises SessionQuarantined when it must be read and cannot be."""
        if not self.known:
            if not self._segments.firsts:
                raise damaged(self._segments.directory, "there is no segment of a journal")
            first = self._segments.firsts[-1]
            self.found(first, self.scan(first))
        return self._last

    def begin(self, first: int) -> None:
        """Makes another, for records from this number on, and goes on with that; raises OSError."""
        self.segment = self._segments.begin(first, self._sync, self._commit.fail)
        self._segments.add(first)
        self.wrote(first - 1)
        self._ended = False

    def wrote(self, last: int) -> None:
        """Notes the number of the last record."""
        self._last, self.known = last, True

    def scan(self, first: int) -> Scan:
        """Reads it, with `sync` once all of it is on the disk: nobody knows what others saw to.

        What is read must not be in memory alone, where it is forgotten at any moment after a flush that failed.
        """
        if self._sync and not self.known:
            path = self._segments.path(first)
            with storage_errors(f"{path} could not be read"):
                nbytes = path.stat().st_size if path.exists() and not is_empty(path) else 0
            if nbytes:
                self._commit.flush_now(partial(renew, path), nbytes)
        return self._segments.scan(first)

    def found(self, first: int, found: Scan, before: str = "") -> None:
        """Notes what it has, and cuts the rest; `before` is the boot of the segment before it, if that was read.

        Raises SessionQuarantined, with nothing cut, where it lacks what was on the disk.
        """
        if self.segment is not None:
            return
        last = first - 1 + len(found.spans)
        if last < self._assured:
            lacks = f"it lacks records up to {self._assured}, which were there"
            raise damaged(self._segments.path(first), lacks, found.end)
        self.wrote(last)
        self._end = found.end
        self._commit.wrote(self._last)
        if found.spans and not self._sync:
            self._segments.doubted.add(first)  # who wrote it may have had a flush that failed
        boots, path = self._segments.boots, self._segments.path(first)
        self._ended = found.header is not None and found.header.boot != boots.now
        if boots.ended(boots.of(found.header, before)):
            self._cut(first, found)
        elif found.torn:
            _LOG.warning("%s: %d bytes of a record were cut whose writing was interrupted", path, found.torn)
            if self._ended:
                self._cut_behind(first, found)  # since it is not opened again
            else:
                self._usage.give(self._session_id, found.torn)
        if found.header is None or (found.torn and not self._ended):
            self.opened()

    def opened(self) -> Segment:
        """Returns what records are appended to."""
        _ = self.last  # finds where it ends
        if self.segment is None:
            with storage_errors("the journal could not be opened"):
                self._open(self._segments.firsts[-1])
        assert self.segment is not None
        return self.segment

    def end_of(self, first: int) -> int | None:
        """Returns where what a segment has for good ends, None for one that is not appended to; for any thread."""
        is_last, segment = first == self._segments.firsts[-1], self.segment
        if segment is not None:
            return segment.end if segment.path == self._segments.path(first) else None
        return self._end if is_last else None

    def close(self) -> Segment | None:
        """Lets go of the segment and returns it, still open; None for none."""
        segment = self.segment
        if segment is not None:
            self._end = segment.end  # first, for who looks for it meanwhile
            self.segment = None
        return segment

    def _cut(self, first: int, found: Scan) -> None:
        """Cuts what a loss of power left, for good: it must not be there again behind what is written next."""
        if found.torn:
            self._cut_behind(first, found)
        if found.torn or found.header is None:
            self.lose(Loss(self._last, int(found.torn > 0), found.torn))

    def _cut_behind(self, first: int, found: Scan) -> None:
        with storage_errors("the journal could not be cut"):
            self._segments.cut(first, found.end)

    def lose(self, loss: Loss) -> None:
        """Notes what a loss of power took, unless more is known of that."""
        if self.loss is None:
            self.loss = loss
            self._usage.tally.lost_power()

    def _open(self, first: int) -> None:
        if self._ended and self._last >= first:
            self.begin(self._last + 1)
            return
        if self._ended:  # its header alone is there, and is written anew
            self._usage.give(self._session_id, self._end)
        if self._ended or self._end == 0:
            self.segment = self._segments.make(first, self._sync)
            self._ended = False
        else:
            self.segment = Segment(self._segments.path(first), self._end)
