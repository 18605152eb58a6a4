"""The directory of a race of servers for one session, and what a race is."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.storage.interleaving import Actor
from tests.storage.sharing.fenced import LEASE
from tests.storage.sharing.servers import Server, gone
from tests.storage.toy import KEY, append, spec

from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.storage.sharing.shared_files import SharedFileSession
from backwire_server.storage.sharing.shared_vault import SharedVault

Works = Sequence[Callable[[], object]]
Check = Callable[[Sequence[Actor]], None]
Race = Callable[["Site"], tuple[Works, Check]]


class Site:
    """A directory that servers share, and a durability for its sessions. A context manager that ends the servers."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self.directory = directory
        self.durability = durability
        self._ends: list[Callable[[], None]] = []

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end()

    def join(self, replica: str) -> SharedVault:
        vault = SharedVault(self.directory, replica=replica, lease=LEASE, default=Durability.JOURNAL, limits=Limits())
        self._ends.append(vault.close)
        return vault

    def start(self, replica: str) -> Server:
        server = Server(self.directory, replica)
        self._ends.append(server.store.close)
        return server

    def made(self, vault: SharedVault) -> SharedFileSession:
        """A session `a` with three mutations, which is open."""
        files = vault.create("a", spec(), self.durability, KEY)
        append(files, 1, 2, 3)
        return files

    def successor(self, *replicas: str) -> SharedVault:
        """Another server, for which all of these are dead."""
        for replica in replicas:
            gone(self.directory, replica)
        return self.join("successor")
