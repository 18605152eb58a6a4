"""The files of one session: its definition, journal, checkpoints and manifest. See docs/storage.md."""

import hashlib
import logging
import math
import time
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.session import session_spec
from backwire_server.sessions.calls import CheckpointInfo
from backwire_server.sessions.durable import Durability, Entry, Mutation, Recovery
from backwire_server.sessions.errors import InvalidRequest, SessionError, StorageFailed
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.state import Image, RequestImage
from backwire_server.storage.checkpointer import Checkpointer
from backwire_server.storage.checkpoints import Checkpoints
from backwire_server.storage.copies import Copies
from backwire_server.storage.disk import Usage, damaged, storage_errors
from backwire_server.storage.journal import Journal
from backwire_server.storage.making import DEFINITION, branched, make, make_branch
from backwire_server.storage.manifest import Manifest, Stored, read_manifest
from backwire_server.storage.pacing import DUE_BYTES, Pace

_LOG = logging.getLogger("backwire.storage")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of sessions are, and what they share.

    Attributes:
        root: The directory that has one for every session.
        limits: What their definitions are held to.
        usage: Counts their bytes.
        checkpointer: Writes in the background.
        due_bytes: How many bytes of journal lead to a checkpoint, if they are as many as the last one has.
        copies: Where checkpoints are copied to; None for nowhere.
        replay_seconds: How much computing leads to a checkpoint that only shortens a replay, if that is WORTH it.
    """

    root: Path
    limits: Limits
    usage: Usage
    checkpointer: Checkpointer
    due_bytes: int = DUE_BYTES
    copies: Copies | None = None
    replay_seconds: float = math.inf

    def of(self, _: str) -> "Place":
        """Returns where a new session of an id goes; raises OSError."""
        return self


class FileSession:
    """Implements `sessions.durable.SessionFiles`: see there for what each method does."""

    def __init__(self, place: Place, directory: Path, manifest: Manifest) -> None:
        """Lists the files; raises OSError."""
        sync = manifest.durability is Durability.FSYNC
        self._place = place
        self._directory = directory
        self._journal = Journal(directory, manifest.session_id, manifest.ancestors, place.usage, sync=sync)
        self._checkpoints = Checkpoints(directory, manifest, place.usage, self._journal.fail)
        lasting = self._checkpoints.lasting_record
        self._pace = Pace(self._journal, lasting, self._base_record, place.due_bytes, place.replay_seconds)
        self._writing: Future[None] | None = None
        self._latest: Future[Any] | None = None  # of all that is written in the background, one after another

    @classmethod
    def create(cls, place: Place, manifest: Manifest, definition: bytes, image: Image | None = None) -> "FileSession":
        """Makes the files of a new session, all or none, beginning with the image if there is one.

        Raises StorageFailed, DiskQuotaExceeded.
        """
        make(place.root, place.usage, manifest, definition, image)
        return cls.open(place, manifest.session_id)

    @classmethod
    def open(cls, place: Place, session_id: str) -> "FileSession":
        """Returns the files of a session, of which only the manifest was read; raises SessionQuarantined.

        They may be open more than once, while all but one only tell what the session is.
        """
        directory = place.root / session_id
        with storage_errors(f"the session in {directory} could not be opened"):
            return cls(place, directory, read_manifest(directory))

    @property
    def durability(self) -> Durability:
        """What mutations outlive."""
        return self._checkpoints.manifest.durability

    @property
    def created(self) -> float:
        """When the session was created, in seconds since 1970."""
        return self._checkpoints.manifest.created

    @property
    def key(self) -> RequestKey | None:
        """The request that created the session."""
        return self._checkpoints.manifest.key

    @property
    def standing(self) -> tuple[int, int]:
        """The step and the contributions of the newest checkpoint, zeros for none."""
        newest = self._checkpoints.newest
        return (newest.step, newest.contributions) if newest else (0, 0)

    @property
    def entry(self) -> Entry:
        """What a vault tells of the session."""
        step, contributions = self.standing
        session_id = self._checkpoints.manifest.session_id
        return Entry(session_id, self.created, self.key, self.dirty, self.durability, step, contributions)

    @property
    def broken(self) -> bool:
        """Whether they must be closed, and opened again."""
        return self._journal.broken

    @property
    def lost(self) -> SessionError | None:
        """Why they are this process's no more: nobody takes them away."""
        return None

    @property
    def due(self) -> bool:
        """Whether the journal has grown far since the last attempt at a checkpoint, and none is going on."""
        return not self._busy and self._pace.due(self._base_bytes)

    def lags(self, seconds: float) -> bool:
        """Whether so many seconds are long for a replay, a checkpoint is small beside it, and none is going on."""
        return self._pace.lags(seconds, self._base_bytes) and not self._busy

    @property
    def dirty(self) -> bool:
        """Whether there are records since the last checkpoint that stays, or there is none."""
        newest = self._checkpoints.newest
        with storage_errors("the size of the journal could not be read"):
            return newest is None or newest.passing or self._journal.follows(newest.record)

    @property
    def replay_bytes(self) -> int:
        """The bytes of journal that follow the last checkpoint, 0 where they cannot be told."""
        newest = self._checkpoints.newest
        passing = newest is not None and newest.passing
        return self._pace.passed_bytes if passing else self._journal.bytes_after(self._base_record)

    def spec(self) -> SessionSpec:
        """Returns what the session was made from; without first values where a checkpoint has them."""
        path = self._directory / DEFINITION
        with storage_errors(f"{path} could not be read"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise damaged(path, "the file is missing") from None
        if hashlib.sha256(data).hexdigest() != self._checkpoints.manifest.definition_sha256:
            raise damaged(path, "its checksum is not the one that the manifest tells")
        spec = session_spec(pb.CreateSessionRequest.FromString(data), self._place.limits)
        return replace(spec, sources={}) if self._checkpoints.manifest.lasting else spec

    def recover(self) -> Recovery:
        """Returns the newest checkpoint and what follows it, and removes what an interruption left."""
        with storage_errors(f"the checkpoints in {self._directory} could not be found"):
            self._checkpoints.check()
        self._prune()
        return self._recovery(self._checkpoints.newest)

    def recover_from_oldest(self) -> Recovery:
        """Returns the oldest checkpoint that the server made and what follows it: all that there is to compare."""
        kept = self._checkpoints.manifest.lasting
        return self._recovery(kept[0] if kept else None)

    def rewind(self, step: int) -> Recovery:
        """Returns a checkpoint before the step and what follows it."""
        self._drain()
        return self._recovery(self._checkpoints.at_or_before(step))

    def append(self, mutation: Mutation) -> int:
        """Writes a record and returns its number."""
        return self._journal.append(mutation)

    def wait(self, number: int, scope: CallScope) -> None:
        """Returns when a record is as durable as it is to be."""
        self._journal.wait(number, scope)

    def checkpoint(self, image: Image, *, background: bool, passing: bool = False) -> None:
        """Makes an image what a replay begins with; nothing is written when there is a checkpoint of the same."""
        if background:
            self._checkpoint_later(image, passing=passing)
            return
        with image:
            self._drain()
            record = self._journal.rotate()
            self._pace.attempt()
            if not self._has(record):
                self._write(image, record)

    def save(self, name: str, image: Image, key: RequestKey | None = None) -> "Future[CheckpointInfo]":
        """Has a checkpoint written that stays."""
        with ExitStack() as otherwise:
            otherwise.enter_context(image)
            self._journal.check()
            record = self._journal.last
            self._latest = saving = self._place.checkpointer.submit(
                image, lambda copy: self._write(copy, record, name, key, after_records=True).info
            )
            otherwise.pop_all()
            return saving

    def checkpoints(self) -> list[CheckpointInfo]:
        """Returns the checkpoints that there are, oldest first."""
        return [each.info for each in self._checkpoints.manifest.checkpoints]

    def delete_checkpoint(self, name: str, key: RequestKey | None = None) -> None:
        """Removes what `save` wrote."""
        self._drain()
        self._journal.check()
        self._checkpoints.remove(name, key)
        self._prune()

    def requests(self) -> list[RequestImage]:
        """Returns the requests that saved and deleted checkpoints, as far as they are remembered."""
        return [each.image for each in self._checkpoints.manifest.requests]

    def verify(self) -> int:
        """Reads all checkpoints and returns how many there are; raises SessionQuarantined for one that is damaged."""
        return self._checkpoints.verify()

    def load(self, name: str) -> Image:
        """Reads what `save` wrote and verifies it."""
        self._drain()
        return self._checkpoints.read(self._checkpoints.find(name))

    def restart(self, image: Image) -> None:
        """Makes an image what the session goes on from; what was saved by name stays."""
        with image:
            self._drain()
            record = self._journal.rotate()
            self._write(image, record, alone=True)
            self._pace.attempt()

    def fork(self, session_id: str, key: RequestKey | None) -> "FileSession":
        """Returns the files of a new session, which share what is on disk of this one, but for what has a name."""
        record = self._journal.rotate()
        with storage_errors("the session could not be put on disk"):
            place = self._place.of(session_id)
        with self._checkpoints.still() as own:
            manifest = branched(own, session_id, key)
            files = [DEFINITION, *(each.file for each in manifest.checkpoints)]
            shared = [*(self._directory / name for name in files), *self._journal.complete()]
            make_branch(place.root, place.usage, manifest, shared, record)
        return type(self).open(place, session_id)

    def hand_over(self, replica: str) -> str:
        """Raises InvalidRequest: no other server may have them."""
        raise InvalidRequest(
            f"the session cannot move to {replica!r}: this server shares its directory with no other; start them with "
            "--shared",
            field="replica",
        )

    def close(self) -> None:
        """Waits for what is being written and closes files."""
        self._drain()
        self._journal.close()

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

    def _checkpoint_later(self, image: Image, *, passing: bool) -> None:
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
                    image, lambda copy: self._write(copy, record, after_records=True, passing=passing)
                )
                self._latest = self._writing
                otherwise.pop_all()

    def _record_to_keep(self, *, passing: bool) -> int:
        """Returns the number of the last record; a segment ends with it, unless it is short and for a passing one."""
        self._pace.begin()
        if passing and not self._journal.is_long:
            self._journal.check()
            return self._journal.last
        if not passing:
            self._pace.attempt()
        return self._journal.rotate()

    def _recovery(self, base: Stored | None) -> Recovery:
        record = base.record if base else 0
        replay = self._journal.replay(record, within=base is not None and base.passing)
        image = self._checkpoints.read(base) if base else None
        return Recovery(image, replay.mutations, replay.count, self._checkpoints.digests_after(record))

    def _write(
        self,
        image: Image,
        record: int,
        name: str = "",
        key: RequestKey | None = None,
        *,
        alone: bool = False,
        after_records: bool = False,
        passing: bool = False,
    ) -> Stored:
        """Writes a checkpoint: at once, or after the records that lead to the image are on the disk.

        Of one that is passing no copy is made: the next would come too soon for where copies go.
        """
        began = time.perf_counter()
        with self._place.usage.tally.checkpoint() as written:
            if after_records:
                self._journal.secure(record)
            try:
                stored = self._checkpoints.add(image, record, name, key=key, alone=alone, passing=passing)
                written(stored.bytes)
                self._pace.took = time.perf_counter() - began
                if self._place.copies is not None and not passing:
                    self._place.copies.put(self._directory, self._checkpoints.manifest)
            finally:
                if not self.broken:
                    self._prune()
        return stored

    def _prune(self) -> None:
        """Removes the checkpoints that do not count, and what of the journal is older than those that do.

        What cannot be removed is logged, and removed another time.
        """
        try:
            with self._checkpoints.still() as manifest:
                self._checkpoints.prune()
                if manifest.lasting:
                    self._journal.prune(manifest.lasting[0].record)
        except OSError as error:
            _LOG.warning("old files in %s could not be removed: %s", self._directory, error)

    def _drain(self) -> None:
        """Returns when nothing is written in the background, and lets go of that."""
        if self._latest is not None:
            wait([self._latest])
            self._writing = self._latest = None
