"""Writes the checkpoints of one session, at once and in the background, and removes what they make superfluous."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from backwire_server.sessions.calls import CheckpointInfo
from backwire_server.sessions.errors import StorageFailed
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.state import Image
from backwire_server.storage.checkpoints.checkpoints import Checkpoints
from backwire_server.storage.checkpoints.pacing import Pace
from backwire_server.storage.disk import storage_errors, sync_directory
from backwire_server.storage.journal.journal import Journal
from backwire_server.storage.journal.segment import renew
from backwire_server.storage.manifest import DEFINITION, MANIFEST, Stored
from backwire_server.storage.place import Place

_LOG = logging.getLogger("backwire.storage")


class Checkpointing:
    """Has checkpoints written, one after another. For one thread at a time, but for `replay_bytes`."""

    def __init__(
        self, place: Place, directory: Path, journal: Journal, checkpoints: Checkpoints, is_broken: Callable[[], bool]
    ) -> None:
        """Writes those of the session whose files are in a directory, as long as these are not broken."""
        self._place = place
        self._directory = directory
        self._journal = journal
        self._checkpoints = checkpoints
        self._is_broken = is_broken
        lasting = checkpoints.lasting_record
        self._pace = Pace(journal, lasting, self._base_record, place.due_bytes, place.replay_seconds)
        self._writing: Future[None] | None = None
        self._latest: Future[Any] | None = None  # of all that is written in the background, one after another

    @property
    def due(self) -> bool:
        """Whether the journal has grown far since the last attempt at a checkpoint, and none is going on."""
        return not self._busy and self._pace.due(self._base_bytes)

    def lags(self, seconds: float) -> bool:
        """Whether so many seconds are long for a replay, a checkpoint is small beside it, and none is going on."""
        return self._pace.lags(seconds, self._base_bytes) and not self._busy

    @property
    def replay_bytes(self) -> int:
        """The bytes of journal that follow the last checkpoint, 0 where they cannot be told."""
        newest = self._checkpoints.newest
        passing = newest is not None and newest.passing
        return self._pace.passed_bytes if passing else self._journal.segments.bytes_after(self._base_record)

    def now(self, image: Image) -> None:
        """Makes an image what a replay begins with; nothing is written when there is a checkpoint of the same."""
        with image:
            self.drain()
            record = self._journal.rotate()
            self._pace.attempt()
            if not self._has(record):
                self._write(image, record)

    def later(self, image: Image, *, passing: bool) -> None:
        """Has done what `now` does, in the background; a passing one only shortens a replay. Logs what goes wrong."""
        with ExitStack() as otherwise:
            otherwise.enter_context(image)
            if self._writing is not None:
                wait([self._writing])
            try:
                record = self._record_to_keep(passing=passing)
            except StorageFailed as error:
                why = "no checkpoint of %s could be begun, and its journal goes on: %s"
                self._place.checkpointer.warnings.warn(why, self._directory, error)
                return
            if not self._has(record):
                self._writing = self._place.checkpointer.attempt(
                    image, lambda copy: self._write(copy, record, passing=passing)
                )
                self._latest = self._writing
                otherwise.pop_all()

    def named(self, name: str, image: Image, key: RequestKey | None) -> "Future[CheckpointInfo]":
        """Has a checkpoint written in the background that stays."""
        with ExitStack() as otherwise:
            otherwise.enter_context(image)
            self._journal.check()
            record = self._journal.last
            self._latest = saving = self._place.checkpointer.submit(
                image, lambda copy: self._write(copy, record, name, key).info
            )
            otherwise.pop_all()
            return saving

    def anew(self, image: Image) -> None:
        """Makes an image what the session goes on from; what was saved by name stays."""
        with image:
            self.drain()
            record = self._journal.rotate()
            self._write(image, record, alone=True)
            self._pace.attempt()

    def drain(self) -> None:
        """Returns when nothing is written in the background, and lets go of that."""
        if self._latest is not None:
            wait([self._latest])
            self._writing = self._latest = None

    def prune(self) -> None:
        """Removes the checkpoints that do not count, and what of the journal is older than those that do.

        What cannot be removed is logged, and removed another time.
        """
        try:
            with self._checkpoints.still() as manifest:
                self._checkpoints.prune()
                if manifest.lasting:
                    self._journal.segments.prune(manifest.lasting[0].record)
        except OSError as error:
            _LOG.warning("old files in %s could not be removed: %s", self._directory, error)

    @property
    def _base_record(self) -> int:
        newest = self._checkpoints.newest
        return newest.record if newest else 0

    @property
    def _base_bytes(self) -> int:
        newest = self._checkpoints.newest
        return newest.bytes if newest else 0

    @property
    def _busy(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def _has(self, record: int) -> bool:
        """Tells whether the newest checkpoint is that of a record, and stays."""
        newest = self._checkpoints.newest
        return newest is not None and newest.record == record and not newest.passing

    def _record_to_keep(self, *, passing: bool) -> int:
        """Returns the number of the last record; a segment ends with it, unless it is short and for a passing one."""
        self._pace.begin()
        if passing and not self._journal.is_long:
            self._journal.check()
            return self._journal.last
        if not passing:
            self._pace.attempt()
        return self._journal.rotate()

    def _write(
        self,
        image: Image,
        record: int,
        name: str = "",
        key: RequestKey | None = None,
        *,
        alone: bool = False,
        passing: bool = False,
    ) -> Stored:
        """Writes a checkpoint once what leads to the image is on the disk; with `alone` nothing does.

        Of one that is passing no copy is made: the next would come too soon for where copies go.
        """
        began = time.perf_counter()
        with self._place.usage.tally.checkpoint() as written:
            if not alone:
                self._journal.secure(record)
            if self._checkpoints.manifest.is_unflushed:
                self._secure_beginning()
            try:
                stored = self._checkpoints.add(image, record, name, key=key, alone=alone, passing=passing)
                written(stored.bytes)
                self._pace.took = time.perf_counter() - began
                if self._place.copies is not None and not passing:
                    self._place.copies.put(self._directory, self._checkpoints.manifest)
            finally:
                if not self._is_broken():
                    self.prune()
        return stored

    def _secure_beginning(self) -> None:
        """Returns when what the session was made with is on the disk, with its name."""
        with storage_errors("what the session began with could not be flushed"):
            for name in (DEFINITION, MANIFEST):
                renew(self._directory / name)
            sync_directory(self._directory.parent)
