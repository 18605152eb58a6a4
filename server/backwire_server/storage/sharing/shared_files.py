"""The files of a session on a directory that servers share, as long as it is this server's."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from backwire_server.sessions.errors import StorageFailed, WrongReplica
from backwire_server.sessions.keeping.durable import Mutation
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.storage.disk import failed, storage_errors
from backwire_server.storage.place import Place
from backwire_server.storage.session_files import FileSession
from backwire_server.storage.sharing.claims import Claims
from backwire_server.storage.sharing.ownership import Ownership
from backwire_server.storage.sharing.signs import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPlace(Place):
    """Where the files of one session are while they are this server's: in a directory by its mark.

    Attributes:
        ownership: What tells whose sessions are.
        claims: What has such a directory for a new session, and is told when the files were closed.
    """

    ownership: Ownership
    claims: Claims

    def of(self, session_id: str, check: Check = unchecked) -> "SharedPlace":
        """Returns where a new session of an id goes; raises OSError."""
        return replace(self, root=self.claims.begin(session_id, check))


class SharedFileSession(FileSession):
    """Files that another server may take away at any moment; then all that is done with them fails."""

    _place: SharedPlace
    _heir: Member | None = None

    @property
    def broken(self) -> bool:
        """Whether they must be closed, and opened again, also because they were taken away, or may have been."""
        return super().broken or not os.path.exists(self._place.root)

    @property
    def lost(self) -> WrongReplica | StorageFailed | None:
        """Why they are not this server's any more, or cannot be seen to be; None while they are."""
        try:
            os.stat(self._place.root)
        except FileNotFoundError:
            return self._place.ownership.lost(self._directory.name)
        except OSError as error:
            return failed(f"it could not be seen who has session {self._directory.name[:64]!r}", error)
        return None

    def append(self, mutation: Mutation) -> int:
        """Writes a record and returns its number; raises WrongReplica when they were taken away meanwhile.

        That is looked at after the write: as long as the mark was there then, whoever takes the session has the record.
        Raises StorageFailed where it cannot be.
        """
        number = super().append(mutation)
        if (lost := self.lost) is not None:
            self._journal.fail(StorageFailed(str(lost)))
            raise lost
        return number

    def fork(self, session_id: str, key: RequestKey | None, check: Check = unchecked) -> FileSession:
        """Returns the files of a new session, which is this server's, too."""
        try:
            return super().fork(session_id, key, check)
        except BaseException:
            self._place.claims.abandon(session_id)
            raise

    def hand_over(self, replica: str, write: Callable[[], None]) -> str:
        """Has another server have them once they are closed, and returns its address."""
        with storage_errors("it could not be seen which servers live"):
            heir = self._place.ownership.member(replica)
        write()
        self._heir = heir
        return heir.address

    def close(self) -> None:
        """Waits for what is being written, closes files, and lets others have the session."""
        try:
            super().close()
        finally:
            with storage_errors(f"{self._place.root} could not be released"):
                self._place.claims.release(self._place.root, self._heir)
