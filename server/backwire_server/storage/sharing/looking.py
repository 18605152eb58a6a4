"""Reads of sessions on a directory that servers share, whoever has them open. See docs/replicas.md."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from backwire_server.sessions.errors import SessionError, SessionNotFound
from backwire_server.sessions.keeping.vault import Entry
from backwire_server.storage.disk import Usage, storage_errors
from backwire_server.storage.place import Place
from backwire_server.storage.session_files import FileSession
from backwire_server.storage.sharing.marks import CHASES
from backwire_server.storage.sharing.ownership import Ownership

T = TypeVar("T")


class Looking:
    """What a server reads of sessions that it need not have. May be used by several threads at once."""

    def __init__(self, ownership: Ownership, place: Place) -> None:
        """Finds sessions where their owners have them, and reads them as the place says."""
        self._ownership = ownership
        self._place = replace(place, usage=Usage())

    def read(self, session_id: str, read: Callable[[FileSession], T]) -> T:
        """Returns what `read` makes of a session's files, which it does not change.

        Called again when the session changed hands meanwhile, and its files had another path then. Raises
        SessionNotFound, SessionQuarantined, StorageFailed.
        """
        for _ in range(CHASES):
            root = None
            try:
                with storage_errors(f"session {session_id[:64]!r} could not be looked at"):
                    root = self._ownership.place(session_id)
                    check_made(root, session_id)
                    with closing(FileSession.open(replace(self._place, root=root), session_id)) as files:
                        return read(files)
            except SessionNotFound:
                raise
            except SessionError:
                if root is None or os.path.exists(root):
                    raise
        raise self._ownership.restless(session_id)

    def entry(self, session_id: str, otherwise: Entry) -> Entry | None:
        """Returns what there is to tell of a session; None when there is none, `otherwise` when it is in no order."""
        try:
            return self.read(session_id, lambda files: replace(files.entry, dirty=False))
        except SessionNotFound:
            return None
        except SessionError:  # who opens it will see
            return otherwise

    def finds(self, session_id: str) -> bool:
        """Tells whether there is a session."""
        try:
            self.check(session_id)
        except SessionNotFound:
            return False
        return True

    def check(self, session_id: str) -> None:
        """Raises SessionNotFound for a session that was there, and that this server or another has deleted since."""
        with storage_errors(f"session {session_id[:64]!r} could not be looked at"):
            self._ownership.place(session_id)


def check_made(own: Path, session_id: str) -> None:
    """Raises SessionNotFound for a directory whose session was never made to its end."""
    if not (own / session_id).is_dir() and own.is_dir():
        raise SessionNotFound(f"there is no session {session_id[:64]!r}; create a new one", field="session_id")
