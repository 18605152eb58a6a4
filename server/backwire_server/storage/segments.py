"""The segments of a session's journal on the disk: which there are, and what they have."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import storage_pb2
from backwire_server.sessions.durable import Mutation
from backwire_server.storage import failpoints
from backwire_server.storage.damage import Damaged
from backwire_server.storage.disk import Usage, damaged, storage_errors, sync_directory, sync_file
from backwire_server.storage.environment import JAX, differences, environment, recorded
from backwire_server.storage.manifest import DEFINITION
from backwire_server.storage.mutations import decode_mutation
from backwire_server.storage.segment import FORMAT, Segment, file_name, first_number, renew
from backwire_server.storage.segment_scan import Scan, bodies, scan

_LOG = logging.getLogger("backwire.storage")


class Segments:
    """Segments by the number of the record that each begins with. For one thread at a time, but for `prune`.

    Attributes:
        directory: Where they are.
        firsts: These numbers, in order.
        doubted: Those of which a flush may have failed, so that the next one tells nothing; see `renew`.
    """

    def __init__(self, directory: Path, session_id: str, ancestors: Sequence[str], usage: Usage) -> None:
        """Lists them; raises OSError when it cannot."""
        self.directory = directory
        self._session_id = session_id
        self._owners = {session_id, *ancestors}
        self._usage = usage
        self._mutex = threading.Lock()
        self.doubted: set[int] = set()
        self.firsts = sorted(filter(None, map(first_number, os.listdir(directory))))

    def add(self, first: int) -> None:
        """Notes that there is another, the last."""
        with self._mutex:
            self.firsts = [*self.firsts, first]

    def path(self, first: int) -> Path:
        """Returns where the one is that begins with the record of this number."""
        return self.directory / file_name(first)

    def scan(self, first: int) -> Scan:
        """Reads one and logs what it was written under that is not so now; raises SessionQuarantined, StorageFailed."""
        path = self.path(first)
        with storage_errors(f"{path} could not be read"):
            try:
                found = scan(path, last=first == self.firsts[-1])
            except FileNotFoundError:
                raise damaged(path, "the file is missing") from None
        if found.header is None:
            return found
        if found.header.session_id not in self._owners:
            raise damaged(path, f"it belongs to another session, {found.header.session_id!r}", 0)
        then = dict(found.header.environment)
        if found.spans and JAX in then and not self._computes_by_jax():
            del then[JAX]  # other sessions of the process did
        if found.spans and (changed := differences(then, environment(devices=JAX in then))):
            _LOG.warning("%s was written under conditions in which bits may differ: %s", path, changed)
        return found

    def _computes_by_jax(self) -> bool:
        """Tells whether the session does; one that does not can be made again where there is none."""
        try:
            data = (self.directory / DEFINITION).read_bytes()
            return pb.CreateSessionRequest.FromString(data).executor == pb.EXECUTOR_JAX
        except (OSError, DecodeError):
            return True

    def make(self, first: int, sync: bool) -> Segment:
        """Makes one with its header, which begins with the record of this number; with `sync` it is on the disk."""
        header = storage_pb2.JournalHeader(
            format=FORMAT, session_id=self._session_id, first_number=first, environment=recorded()
        )
        header.create_time.FromNanoseconds(time.time_ns())
        segment = Segment(self.path(first), 0)
        try:
            segment.begin(header)
            if sync:
                segment.flush()
                sync_directory(self.directory)
        except BaseException:
            segment.close()
            raise
        self._usage.take(self._session_id, segment.end, checked=False)
        self._usage.tally.began_segment()
        return segment

    def secure(self, first: int, end: int | None) -> None:
        """Returns when one is on the disk, as far as to `end` where more is being appended; raises OSError.

        For one thread at a time, whatever the others do.
        """
        path, doubted = self.path(first), first in self.doubted
        self.doubted.add(first)
        if doubted:
            renew(path, end)
        else:
            sync_file(path)
        self.doubted.discard(first)

    def bytes_after(self, record: int) -> int:
        """Returns the size of the segments that begin after the record of this number, 0 where it cannot be read."""
        try:
            return sum(self.path(first).stat().st_size for first in self.firsts if first > record)
        except OSError:
            return 0

    def complete(self) -> list[Path]:
        """Returns the segments that nothing will be appended to, oldest first."""
        return [self.path(first) for first in self.firsts[:-1]]

    def prune(self, record: int) -> None:
        """Removes the segments that have no record after the one of this number; raises OSError."""
        with self._mutex:
            while len(self.firsts) > 1 and self.firsts[1] <= record + 1:
                failpoints.hit("prune.segment")
                path = self.path(self.firsts[0])
                nbytes = path.stat().st_size
                path.unlink()
                self._usage.give(self._session_id, nbytes)
                self.firsts = self.firsts[1:]


def mutations(segments: Sequence[tuple[Path, int, Sequence[tuple[int, int]]]]) -> Iterator[Mutation]:
    """Yields what the spans of segments have, each with its number of the first; raises SessionQuarantined."""
    for path, first, spans in segments:
        for expected, (data, span) in enumerate(zip(bodies(path, spans), spans, strict=True), first):
            try:
                number, mutation = decode_mutation(data)
            except Damaged as error:
                raise damaged(path, str(error), span[0]) from None
            if number != expected:
                raise damaged(path, f"it has record {number} where {expected} should be", span[0])
            yield mutation
