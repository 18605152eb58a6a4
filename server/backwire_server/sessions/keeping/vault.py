"""What a server needs from whoever keeps its sessions on disk, or puts one into a file; `storage` has those that do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from backwire_server.sessions.keeping.durable import Durability, SessionFiles
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.state import Image

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A session in a vault: when it was created, and under which request; whether its journal has to be replayed.

    `step` and `contributions` are those of its last checkpoint. `definition` is a digest of what it was made from, by
    which those are known that were made from the same; empty where that cannot be told.
    """

    session_id: str
    created: float
    key: RequestKey | None
    dirty: bool
    durability: Durability
    step: int = 0
    contributions: int = 0
    definition: str = ""


class Vault(Protocol):
    """Where sessions are kept on disk. May be used by several threads at once."""

    @property
    def default(self) -> Durability:
        """The durability of sessions that ask for none."""

    @property
    def shared(self) -> bool:
        """Whether other servers use the same directory: then sessions come and go, and each is open in one of them."""

    @property
    def secret(self) -> bytes:
        """What the id of a session follows from, with the request that makes it; empty where ids are drawn."""

    def entries(self) -> list[Entry]:
        """Returns all sessions that are kept and are this process's own, oldest first, also those that are damaged."""

    def names(self) -> list[str]:
        """Returns the ids of all of them, without reading anything of them."""

    def entry(self, session_id: str) -> Entry | None:
        """Returns a session; None when there is none."""

    def owner(self, session_id: str) -> str:
        """Returns the address of another server that lives and has a session open, or in memory; empty for none."""

    def deletions(self) -> list[tuple[str, RequestKey]]:
        """Returns which sessions were deleted lately, and by which request, oldest first."""

    def create(
        self,
        session_id: str,
        spec: SessionSpec,
        durability: Durability,
        key: RequestKey | None = None,
        image: Image | None = None,
        check: Check = unchecked,
    ) -> SessionFiles:
        """Returns the files of a new session, on disk; raises StorageFailed, DiskQuotaExceeded.

        It begins with an image, which is closed, or with what the specification says for None. All at once: after a
        crash it is there wholly or not at all. Waits as `open` does.
        """

    def open(self, session_id: str, check: Check = unchecked, /) -> SessionFiles:
        """Returns the files of a session; raises SessionQuarantined when they are not in order.

        Raises WrongReplica while another server has them open, and SessionNotFound when there are none. Where it waits
        for the end of another server, it calls `check`, which may raise.
        """

    def look(self, session_id: str, read: Callable[[SessionFiles], T], /) -> T:
        """Returns what `read` makes of the files of a session, which it only reads, whoever has them open.

        Called again where they change hands meanwhile. Raises what `open` raises else.
        """

    def check(self, session_id: str) -> None:
        """Raises SessionNotFound for a session that was there and is no more; reads nothing of it."""

    def delete(self, session_id: str, key: RequestKey | None = None, check: Check = unchecked) -> None:
        """Removes all files of a session, in whatever order they are, and remembers the request that asked for it.

        Its SessionFiles must have been closed. Waits as `open` does.
        """

    @property
    def scratch(self) -> str:
        """The path of a directory for files that nobody needs after a restart."""

    def close(self) -> None:
        """Ends threads and lets go of the directory."""


class Carrier(Protocol):
    """Puts a session into one file, and takes it out again."""

    def pack(self, spec: SessionSpec, image: Image) -> Iterator[bytes]:
        """Yields the file in pieces; closes the image."""

    def unpack(self, path: str) -> tuple[SessionSpec, Image]:
        """Returns what the file at a path holds, verified; raises InvalidExport."""
