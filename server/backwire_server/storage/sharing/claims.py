"""Which sessions of a shared directory one server has: each is opened once by it, made once and restored once."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backwire_server.sessions.errors import Recovering, SessionError, SessionNotFound, WrongReplica
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.storage.deletions import Deletions
from backwire_server.storage.disk import new_directory, storage_errors
from backwire_server.storage.sharing.ownership import RETRY_SECONDS, Ownership
from backwire_server.storage.sharing.signs import Member
from backwire_server.storage.vault import is_id


class Claims:
    """The sessions that this server has taken, of which no other has the files. May be used by several threads at once.

    A claim begins with `take` or `begin`, which return the directory of the session, and ends with `release`, `abandon`
    or `forget`.
    """

    def __init__(self, ownership: Ownership, deletions: Deletions) -> None:
        """Has no session yet; those that were deleted lately are not made again."""
        self._ownership = ownership
        self._deletions = deletions
        self._mutex = threading.Lock()
        self._open: set[str] = set()

    def take(self, session_id: str, check: Check = unchecked) -> Path:
        """Takes a session that there is; raises what `Ownership.take` raises, and Recovering where it is taken here."""
        if not is_id(session_id):
            raise SessionNotFound(f"there is no session {session_id[:64]!r}; create a new one", field="session_id")
        with self._mutex:
            if session_id in self._open:
                raise Recovering(f"session {session_id!r} is being opened; call again", retry_after=RETRY_SECONDS)
            self._open.add(session_id)
        try:
            with storage_errors(f"session {session_id!r} could not be taken over"):
                return self._ownership.take(session_id, check)
        except BaseException:
            self.forget(session_id)
            raise

    def begin(self, session_id: str, check: Check = unchecked) -> Path:
        """Takes the place of a new session; raises SessionNotFound, Recovering while another makes it, and OSError."""
        if session_id in self._deletions:
            raise SessionNotFound(
                f"this request made session {session_id[:96]!r}, which was deleted; send it with a new request_id",
                field="request_id",
            )
        try:
            own = self._ownership.begin(session_id)
        except FileExistsError:
            return self._take_unmade(session_id, check)
        with self._mutex:
            self._open.add(session_id)
        return own

    def abandon(self, session_id: str) -> None:
        """Removes what a session left that could not be made."""
        with suppress(SessionError, OSError):
            self._ownership.abandon(session_id)
        self.forget(session_id)

    def release(self, own: Path, heir: Member | None = None) -> None:
        """Lets the heir have the session of a directory, or anybody for None; raises OSError."""
        try:
            self._ownership.release(own, heir)
        finally:
            self.forget(own.parent.name)

    def forget(self, session_id: str) -> None:
        """Ends the claim to a session that is gone."""
        with self._mutex:
            self._open.discard(session_id)

    @contextmanager
    def restoring(self, session_id: str) -> Iterator[Path | None]:
        """Gives the directory to restore a session in, which is nobody's then; None when another does that already."""
        try:
            own = self._ownership.begin(session_id)
        except FileExistsError:
            yield None
            return
        try:
            with new_directory(own, session_id, sync=True) as directory:
                yield directory
        except BaseException:
            self._ownership.abandon(session_id)
            raise
        self._ownership.release(own)

    def _take_unmade(self, session_id: str, check: Check) -> Path:
        """Takes the place of a session over which another server died while it made it; raises Recovering otherwise."""
        again = Recovering(
            f"another replica makes session {session_id[:96]!r} for the same request; call again",
            retry_after=RETRY_SECONDS,
        )
        try:
            own = self.take(session_id, check)
        except (WrongReplica, SessionNotFound):
            raise again from None
        if (own / session_id).exists():
            self.release(own)
            raise again
        for left in own.iterdir():
            shutil.rmtree(left)
        return own
