"""All sessions in a data directory that several servers use at the same time. See docs/replicas.md."""

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from backwire_server.sessions.info import slot_of
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.keeping.vault import Entry
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.replicas import replica_of
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.state import Image
from backwire_server.storage.checkpoints.checkpointer import Checkpointer
from backwire_server.storage.checkpoints.copies import Copies
from backwire_server.storage.checkpoints.pacing import DUE_BYTES
from backwire_server.storage.deletions import Deletions
from backwire_server.storage.disk import GONE, Usage, lasting_directory, storage_errors, sync_directory
from backwire_server.storage.lock import DELETED, SCRATCH, SHARED
from backwire_server.storage.making import new_manifest
from backwire_server.storage.place import Place
from backwire_server.storage.session_files import FileSession
from backwire_server.storage.sharing.claims import Claims
from backwire_server.storage.sharing.looking import Looking, check_made
from backwire_server.storage.sharing.membership import MOST_WAITING, Membership
from backwire_server.storage.sharing.ownership import Ownership
from backwire_server.storage.sharing.secret import common_secret
from backwire_server.storage.sharing.shared_files import SharedFileSession, SharedPlace
from backwire_server.storage.vault import everything, is_id

T = TypeVar("T")

REPLAY_SECONDS = 0.25
"""How much computing leads to a passing checkpoint: who takes a session over has to do it again."""


class SharedVault:
    """Implements `sessions.keeping.vault.Vault` for one of several servers: a session is open in one of them at a time.

    Attributes:
        address: Where this server is called, as the others were told; empty for nowhere yet.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        replica: str,
        lease: float,
        default: Durability,
        limits: Limits,
        checkpoint_bytes: int = DUE_BYTES,
        checkpoint_url: str | None = None,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """Joins the others, who count this server as dead when it gives no sign of life for `lease` seconds.

        So many calls at most, and MOST_WAITING, wait for one of them that falls silent.
        Copies checkpoints, and makes sessions of copies, as FileVault does. Raises StorageFailed, ConfigError, OSError.
        """
        root = Path(directory)
        self.address = ""
        self.default = default
        self.scratch = str(root / SCRATCH / replica)
        self._usage = Usage()
        self._root = root / SHARED
        self._mutex = threading.Lock()
        with storage_errors(f"the data directory {root} cannot be used"):
            shutil.rmtree(self.scratch, ignore_errors=True)
            for path in (self._root, root / DELETED, Path(self.scratch)):
                lasting_directory(path, 0o700)
            self._deletions = Deletions(root / DELETED, everything)
            self._finish()
            self.secret = common_secret(root)
            self._membership = Membership(root, replica, lease, most_waiting)
        self._copies = None if checkpoint_url is None else Copies(checkpoint_url, self.scratch)
        self._ownership = Ownership(self._root, self._membership, Path(self.scratch))
        self._claims = Claims(self._ownership, self._deletions)
        self._place = SharedPlace(
            self._root,
            limits,
            self._usage,
            Checkpointer(),
            checkpoint_bytes,
            self._copies,
            REPLAY_SECONDS,
            ownership=self._ownership,
            claims=self._claims,
        )
        self._looking = Looking(self._ownership, Place(self._root, limits, self._usage, self._place.checkpointer))
        if self._copies is not None and not self.names():
            self._copies.restore(is_id, self._claims.restoring)

    @property
    def shared(self) -> bool:
        """Whether other servers use the directory: they may."""
        return True

    @property
    def usage(self) -> Usage:
        """What this server has written of sessions."""
        return self._usage

    @property
    def silence(self) -> float:
        """For how many seconds the directory has not answered, 0 while it does."""
        return max(self._usage.tally.silence, self._membership.silence)

    def announce(self, address: str) -> None:
        """Tells the others where clients reach this server; raises OSError."""
        self.address = address
        self._membership.announce(address)

    def peers(self) -> list[str]:
        """Returns where the other servers are called that live; raises OSError."""
        found = (self._membership.alive(name) for name in self._membership.names)
        return [member.address for member in found if member is not None and member.address]

    def lives_at(self, address: str) -> bool:
        """Tells whether a server lives that has told an address, this one or another; raises OSError."""
        return address == self.address or self._membership.lives_at(address)

    def names(self) -> list[str]:
        """Returns the ids of all sessions, whoever has them open."""
        with storage_errors("the sessions could not be listed"):
            return [name for name in sorted(os.listdir(self._root)) if is_id(name)]

    def entries(self) -> list[Entry]:
        """Returns all sessions, oldest first; none is said to need a replay, which is left to their next calls."""
        found = [entry for name in self.names() if (entry := self.entry(name)) is not None]
        return sorted(found, key=lambda each: each.created)

    def entry(self, session_id: str) -> Entry | None:
        """Returns a session, whoever has it open; None when there is none."""
        otherwise = Entry(session_id, 0.0, None, False, self.default)
        return self._looking.entry(session_id, otherwise) if is_id(session_id) else None

    def owner(self, session_id: str) -> str:
        """Returns the address of another server that lives and has a session open; empty for none.

        One that is in memory alone is with the server in its id.
        """
        if slot_of(session_id) is None and (replica := replica_of(session_id)):
            return self._membership.address(replica)
        return self._ownership.owner(session_id) if is_id(session_id) else ""

    def deletions(self) -> list[tuple[str, RequestKey]]:
        """Returns which sessions were deleted lately, and by which request, oldest first.

        Not those that are there still, since a server ended, or lost the session, before it was done: the request
        deletes them when it comes again.
        """
        there = set(self.names())
        with self._mutex:
            found = self._deletions.all()
        return [each for each in found if each[0] not in there or not self._looking.finds(each[0])]

    def create(
        self,
        session_id: str,
        spec: SessionSpec,
        durability: Durability,
        key: RequestKey | None = None,
        image: Image | None = None,
        check: Check = unchecked,
    ) -> SharedFileSession:
        """Returns the files of a new session, which begins with the image if there is one."""
        with image or nullcontext():
            manifest = new_manifest(session_id, durability, key, spec.definition)
            with storage_errors("the session could not be put on disk"):
                place = self._place.of(session_id, check)
            try:
                made = SharedFileSession.create(place, manifest, spec.definition, image)
            except BaseException:
                self._claims.abandon(session_id)
                raise
        assert isinstance(made, SharedFileSession)
        return made

    def open(self, session_id: str, check: Check = unchecked) -> SharedFileSession:
        """Takes a session and returns its files; raises WrongReplica while another server that is alive has it."""
        own = self._claims.take(session_id, check)
        try:
            check_made(own, session_id)
            opened = SharedFileSession.open(replace(self._place, root=own), session_id)
        except BaseException as error:
            taken_away = not own.exists()
            with storage_errors(f"{own} could not be released"):
                self._claims.release(own)
            if taken_away:
                raise self._ownership.lost(session_id) from error
            raise
        assert isinstance(opened, SharedFileSession)
        return opened

    def look(self, session_id: str, read: Callable[[FileSession], T]) -> T:
        """Returns what `read` makes of the files of a session, whoever has them open; see `Looking.read`."""
        return self._looking.read(session_id, read)

    def check(self, session_id: str) -> None:
        """Raises SessionNotFound for a session that was there, and that this server or another has deleted since."""
        self._looking.check(session_id)

    def delete(self, session_id: str, key: RequestKey | None = None, check: Check = unchecked) -> None:
        """Removes all files of a session; raises WrongReplica while another server has it, and StorageFailed."""
        own = self._claims.take(session_id, check)
        try:
            with storage_errors("the session could not be removed from the disk"):
                if key is not None:
                    with self._mutex:
                        self._deletions.add(session_id, key)
                gone = self._root / f"{GONE}{session_id}"
                try:
                    os.rename(own, gone)
                except FileNotFoundError as error:  # another has it meanwhile
                    raise self._ownership.lost(session_id) from error
                with suppress(OSError):
                    own.parent.rmdir()
                sync_directory(self._root)
                shutil.rmtree(gone, ignore_errors=True)
        finally:
            self._claims.forget(session_id)
        self._usage.forget(session_id)
        if self._copies is not None:
            self._copies.forget(session_id)

    def close(self) -> None:
        """Returns when all is written and copied, and the others know that this server is gone."""
        self._place.checkpointer.close()
        if self._copies is not None:
            self._copies.close()
        with storage_errors("the data directory could not be left"):
            self._membership.leave()

    def _finish(self) -> None:
        """Removes what is left of sessions that were being deleted when a server ended."""
        for name in os.listdir(self._root):
            if name.startswith(GONE):
                shutil.rmtree(self._root / name, ignore_errors=True)
            elif is_id(name):
                with suppress(OSError):
                    os.rmdir(self._root / name)  # which is empty where only this was left to do
