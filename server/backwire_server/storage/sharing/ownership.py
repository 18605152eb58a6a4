"""Whose a session is on a directory that servers share: a name of a directory, which can be changed by one alone.

The files of a session are in `ID/MARK/ID`; see `marks`. Who takes a session over renames the directory; of several that
try, one does. From then on every path of the owner before leads nowhere, so that nothing which it does by name has an
effect, whatever it believes. What it still writes to a journal that it has open goes to a file without a name, since
the next owner goes on with a copy; and it acknowledges nothing before it has seen, after the write, that its mark is
still there.
"""

import errno
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from backwire_server.sessions.errors import InvalidRequest, NoWorker, SessionNotFound, StorageFailed, WrongReplica
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.storage.disk import GONE, TEMPORARY, UNFINISHED, sync_directory, sync_file
from backwire_server.storage.journal.segment import first_number
from backwire_server.storage.sharing.marks import CHASES, Mark, mark_of
from backwire_server.storage.sharing.membership import Membership
from backwire_server.storage.sharing.signs import Member

RETRY_SECONDS = 0.1

MOMENT_SECONDS = 0.02
"""For how long a server that has a session, and lives, is taken to live still: calls that are passed on follow one
another closely, and one that comes too late is not answered, and repeated by its client."""

MOST_KNOWN = 4_096
"""Of how many sessions it is remembered which other server has them."""


class Ownership:
    """The sessions of a directory, as one of the servers has them. May be used by several threads at once."""

    def __init__(self, root: Path, membership: Membership, scratch: Path) -> None:
        """Looks for sessions in `root`, for the server of the membership, which alone uses `scratch`."""
        self._root = root
        self._scratch = scratch
        self._membership = membership
        self._unsevered: set[Path] = set()
        self._others: dict[str, tuple[str, Mark]] = {}
        self._addresses: dict[str, tuple[str, float]] = {}

    def begin(self, session_id: str) -> Path:
        """Returns an empty directory for a new session, which is this server's.

        Raises FileExistsError when there is one of this id, and OSError. Of several that try, one succeeds.
        """
        mark, home = str(self._mine(1)), self._root / session_id
        draft = self._scratch / f"{UNFINISHED}{session_id}"
        (draft / mark).mkdir(mode=0o700, parents=True)
        try:
            os.rename(draft, home)  # which takes the place of an empty directory alone
        except OSError as error:
            shutil.rmtree(draft)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, "there is such a session", str(home)) from None
            raise
        for directory in (home, self._root):
            sync_directory(directory)
        return home / mark

    def abandon(self, session_id: str) -> None:
        """Removes what there is of a session that could not be made, if it is this server's still; raises OSError."""
        mark = self._mark(session_id)
        own, gone = self._root / session_id / str(mark), self._scratch / f"{GONE}{session_id}"
        if self._is_mine(mark) and not (own / session_id).exists():
            with suppress(FileNotFoundError):  # another has it already, and makes it
                os.rename(own, gone)
                os.rmdir(own.parent)
        shutil.rmtree(gone, ignore_errors=True)

    def take(self, session_id: str, check: Check = unchecked) -> Path:
        """Returns the directory that has the session's, which is this server's from now on.

        Raises WrongReplica while it is another's that is alive, for whose next sign it waits where that is late,
        SessionNotFound, and OSError; and what `check` does, which is called while it waits.
        """
        for _ in range(CHASES):
            mark = self._mark(session_id)
            before = self._root / session_id / str(mark)
            own = before
            if not self._is_mine(mark):
                self._check_free(session_id, mark, check)
                own = before.with_name(str(self._mine(mark.epoch + 1)))
                if mark.replica:
                    self._unsevered.add(own)
                if not self._rename(before, own):
                    continue
            if own in self._unsevered:
                _sever(own / session_id)
                self._unsevered.discard(own)
            return own
        raise self.restless(session_id)

    def member(self, replica: str) -> Member:
        """Returns the server of a name, be it this one.

        Raises InvalidRequest when none lives, NoWorker when one has given no sign of life of late, and OSError.
        """
        found = self._membership.me if replica == self._membership.replica else self._membership.alive(replica)
        if found is not None:
            return found
        others = ", ".join(self._membership.names)
        if self._membership.stalls(replica):
            raise NoWorker(
                f"replica {replica!r} gives no sign of life; call again, or name one of: {others}",
                retry_after=RETRY_SECONDS,
            )
        raise InvalidRequest(
            f"no replica {replica[:96]!r} lives on this directory; name one of: {others}", field="replica"
        )

    def release(self, own: Path, heir: Member | None = None) -> None:
        """Has the session be the heir's, or nobody's for None, if it is this server's still; raises OSError."""
        mark = Mark.of(own.name)
        assert mark is not None
        after = Mark(mark.epoch + 1, heir.replica, heir.incarnation) if heir else Mark(mark.epoch + 1)
        try:
            os.rename(own, own.with_name(str(after)))
        except FileNotFoundError:
            return  # another has it already

    def place(self, session_id: str) -> Path:
        """Returns the directory that has the session's, to look on; raises SessionNotFound, OSError."""
        return self._root / session_id / str(self._mark(session_id))

    def owner(self, session_id: str) -> str:
        """Returns the address of another server that lives and has a session; empty for none, and where none is.

        That it lives was found up to MOMENT_SECONDS ago; that it has the session is so now.
        """
        address, until = self._addresses.get(session_id, ("", 0.0))
        if time.monotonic() < until and self._known(session_id) is not None:
            return address
        address = self._owner(session_id)
        if address:
            self._addresses[session_id] = address, time.monotonic() + MOMENT_SECONDS
        return address

    def _owner(self, session_id: str) -> str:
        try:
            mark = self._known(session_id) or self._mark(session_id)
            if not mark.replica or self._is_mine(mark):
                return ""
            self._remember(session_id, mark)
            member = self._membership.alive(mark.replica, mark.incarnation)
        except (SessionNotFound, OSError):
            return ""
        return member.address if member else ""

    def lost(self, session_id: str) -> WrongReplica:
        """Returns the error for a session that was taken from this server."""
        try:
            return self._elsewhere(session_id, self._mark(session_id))
        except (SessionNotFound, OSError):
            return self._elsewhere(session_id, Mark(0))

    def restless(self, session_id: str) -> StorageFailed:
        """Returns the error for a session that could not be found in one place for long enough."""
        return StorageFailed(
            f"session {session_id[:96]!r} changes hands again and again; call again", retry_after=RETRY_SECONDS
        )

    def _rename(self, before: Path, own: Path) -> bool:
        """Takes a session by its mark; tells whether nobody was faster."""
        try:
            os.rename(before, own)
        except FileNotFoundError:
            self._unsevered.discard(own)
            return False
        sync_directory(own.parent)
        return True

    def _is_mine(self, mark: Mark) -> bool:
        return (mark.replica, mark.incarnation) == (self._membership.replica, self._membership.incarnation)

    def _mine(self, epoch: int) -> Mark:
        return Mark(epoch, self._membership.replica, self._membership.incarnation)

    def _mark(self, session_id: str) -> Mark:
        return mark_of(self._root, session_id)

    def _known(self, session_id: str) -> Mark | None:
        """Returns the mark of another server that a session had when it was last looked for, if it is there still."""
        path, mark = self._others.get(session_id, ("", None))
        if mark is None or os.path.exists(path):
            return mark
        self._others.pop(session_id, None)
        return None

    def _remember(self, session_id: str, mark: Mark) -> None:
        """Keeps a mark of another server, so that forwarding to it lists no directory."""
        if session_id not in self._others:
            if len(self._others) >= MOST_KNOWN:
                self._others.clear()
                self._addresses.clear()
            self._others[session_id] = f"{self._root}/{session_id}/{mark}", mark

    def _check_free(self, session_id: str, mark: Mark, check: Check) -> None:
        if mark.replica and not self._membership.outlasted(mark.replica, mark.incarnation, check):
            raise self._elsewhere(session_id, mark, undone=True)

    def _elsewhere(self, session_id: str, mark: Mark, *, undone: bool = False) -> WrongReplica:
        owner = self._membership.alive(mark.replica, mark.incarnation) if mark.replica else None
        where = f"is with the replica {mark.replica!r}" if mark.replica else "is with another replica, or with none"
        return WrongReplica(
            f"session {session_id[:96]!r} {where}, and this is {self._membership.replica!r}; call again, there",
            retry_after=RETRY_SECONDS,
            owner=owner.address if owner else "",
            undone=undone,
        )


def _sever(directory: Path) -> None:
    """Puts a copy in place of the last segment, which the owner before may have open, and may write to still."""
    if not directory.is_dir():
        return
    firsts = [(first, name) for name in os.listdir(directory) if (first := first_number(name)) is not None]
    if not firsts:
        return
    path = directory / max(firsts)[1]
    copy = path.with_name(path.name + TEMPORARY)
    shutil.copyfile(path, copy)
    os.chmod(copy, 0o600)
    sync_file(copy)
    os.rename(copy, path)
    sync_directory(directory)
