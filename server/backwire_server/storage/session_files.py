"""The files of one session: its definition, journal, checkpoints and manifest. See docs/storage.md."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.session import session_spec
from backwire_server.sessions.calls import CheckpointInfo
from backwire_server.sessions.errors import InvalidRequest, SessionError, SessionQuarantined
from backwire_server.sessions.keeping.durable import Durability, Mutation, Recovery
from backwire_server.sessions.keeping.vault import Entry
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import CallScope, Check, unchecked
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.state import Image, RequestImage
from backwire_server.storage.checkpoints.checkpointing import Checkpointing
from backwire_server.storage.checkpoints.checkpoints import Checkpoints
from backwire_server.storage.disk import damaged, storage_errors
from backwire_server.storage.journal.boots import Boots
from backwire_server.storage.journal.journal import Journal
from backwire_server.storage.making import branched, make, make_branch
from backwire_server.storage.manifest import DEFINITION, Manifest, Stored, read_manifest
from backwire_server.storage.place import Place


class FileSession:
    """Implements `sessions.keeping.durable.SessionFiles`: see there for what each method does."""

    def __init__(self, place: Place, directory: Path, manifest: Manifest) -> None:
        """Lists the files; raises OSError."""
        sync = manifest.durability is Durability.FSYNC
        self._place = place
        self._directory = directory
        boots = Boots("" if sync else place.boot, manifest.boot)
        self._journal = Journal(
            directory,
            manifest.session_id,
            manifest.ancestors,
            place.usage,
            sync=sync,
            boots=boots,
            assured=manifest.assured,
        )
        manifest = replace(manifest, boot=boots.now)
        self._checkpoints = Checkpoints(directory, manifest, place.usage, self._journal.fail)
        self._checkpointing = Checkpointing(place, directory, self._journal, self._checkpoints, lambda: self.broken)

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
    def definition(self) -> str:
        """The digest of what the session was made from."""
        return self._checkpoints.manifest.definition_sha256

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
        return Entry(
            session_id, self.created, self.key, self.dirty, self.durability, step, contributions, self.definition
        )

    @property
    def doubtful(self) -> bool:
        """Whether a loss of power may have taken what the session began with; see `power_loss.is_gone`."""
        return self._checkpoints.manifest.is_unflushed and self._journal.segments.boots.is_other

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
        return self._checkpointing.due

    def lags(self, seconds: float) -> bool:
        """Whether so many seconds are long for a replay, a checkpoint is small beside it, and none is going on."""
        return self._checkpointing.lags(seconds)

    @property
    def dirty(self) -> bool:
        """Whether there are records since the last checkpoint that stays, or there is none."""
        newest = self._checkpoints.newest
        with storage_errors("the size of the journal could not be read"):
            return newest is None or newest.passing or self._journal.follows(newest.record)

    @property
    def replay_bytes(self) -> int:
        """The bytes of journal that follow the last checkpoint, 0 where they cannot be told."""
        return self._checkpointing.replay_bytes

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
        self._checkpointing.prune()
        return self._recovered(self._checkpoints.newest)

    def recover_from_oldest(self) -> Recovery:
        """Returns the oldest checkpoint that the server made and what follows it: all that there is to compare."""
        kept = self._checkpoints.manifest.lasting
        return self._recovered(kept[0] if kept else None)

    def rewind(self, step: int) -> Recovery:
        """Returns a checkpoint before the step and what follows it."""
        self._checkpointing.drain()
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
            self._checkpointing.later(image, passing=passing)
        else:
            self._checkpointing.now(image)

    def save(self, name: str, image: Image, key: RequestKey | None = None) -> "Future[CheckpointInfo]":
        """Has a checkpoint written that stays."""
        return self._checkpointing.named(name, image, key)

    def checkpoints(self) -> list[CheckpointInfo]:
        """Returns the checkpoints that there are, oldest first."""
        return [each.info for each in self._checkpoints.manifest.checkpoints]

    def delete_checkpoint(self, name: str, key: RequestKey | None = None) -> None:
        """Removes what `save` wrote."""
        self._checkpointing.drain()
        self._journal.check()
        self._checkpoints.remove(name, key)
        self._checkpointing.prune()

    def requests(self) -> list[RequestImage]:
        """Returns the requests that saved and deleted checkpoints, as far as they are remembered."""
        return [each.image for each in self._checkpoints.manifest.requests]

    def verify(self) -> int:
        """Reads all checkpoints and returns how many there are; raises SessionQuarantined for one that is damaged."""
        return self._checkpoints.verify()

    def load(self, name: str) -> Image:
        """Reads what `save` wrote and verifies it."""
        self._checkpointing.drain()
        return self._checkpoints.read(self._checkpoints.find(name))

    def restart(self, image: Image) -> None:
        """Makes an image what the session goes on from; what was saved by name stays."""
        self._checkpointing.anew(image)

    def fork(self, session_id: str, key: RequestKey | None, check: Check = unchecked) -> "FileSession":
        """Returns the files of a new session, which share what is on disk of this one, but for what has a name."""
        record = self._journal.rotate()
        with storage_errors("the session could not be put on disk"):
            place = self._place.of(session_id, check)
        with self._checkpoints.still() as own:
            manifest = branched(own, session_id, key, record)
            files = [DEFINITION, *(each.file for each in manifest.checkpoints)]
            shared = [*(self._directory / name for name in files), *self._journal.segments.complete()]
            make_branch(place.root, place.usage, manifest, shared)
        return type(self).open(place, session_id)

    def hand_over(self, replica: str, write: Callable[[], None]) -> str:  # noqa: ARG002 - which others do
        """Raises InvalidRequest: no other server may have them."""
        raise InvalidRequest(
            f"the session cannot move to {replica!r}: this server shares its directory with no other; start them with "
            "--shared",
            field="replica",
        )

    def close(self) -> None:
        """Waits for what is being written and closes files."""
        self._checkpointing.drain()
        self._journal.close()

    def _recovered(self, base: Stored | None) -> Recovery:
        """Returns a checkpoint and what follows it, as far as a loss of power has left that."""
        try:
            return self._recovery(base)
        except SessionQuarantined:
            newest = self._checkpoints.newest
            if not self._journal.go_back(newest.record if newest else 0, self._checkpoints.manifest.assured):
                raise
        return self._recovery(base)

    def _recovery(self, base: Stored | None) -> Recovery:
        record = base.record if base else 0
        replay = self._journal.replay(record, within=base is not None and base.passing)
        image = self._checkpoints.read(base) if base else None
        return Recovery(
            image, replay.mutations, replay.count, self._checkpoints.digests_after(record), self._journal.loss
        )
