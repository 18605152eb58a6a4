"""One session on a directory that servers share, its files and its mark."""

from collections.abc import Callable
from pathlib import Path

from tests.storage.toy import KEY, append, spec

from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.sharing.marks import Mark
from backwire_server.storage.sharing.shared_files import SharedFileSession
from backwire_server.storage.sharing.shared_vault import SharedVault

Join = Callable[[str], SharedVault]

LEASE = 3_600.0
"""Longer than any test: who is alive is what the files told when a server joined."""


def made(vault: SharedVault, durability: Durability = Durability.JOURNAL) -> SharedFileSession:
    """A session `a` with three mutations, which is open."""
    files = vault.create("a", spec(), durability, KEY)
    append(files, 1, 2, 3)
    return files


def mark(directory: Path) -> Mark:
    (found,) = (directory / "shared" / "a").iterdir()
    told = Mark.of(found.name)
    assert told is not None
    return told
