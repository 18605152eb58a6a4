"""Data directories, servers over them and failpoints, none of which outlives its test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.storage.durable import Disk
from tests.storage.journal.power import Boot
from tests.storage.sharing.fenced import LEASE, Join
from tests.storage.sharing.members import Clock, Enlist
from tests.storage.sharing.servers import Server, Start

from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.storage import failpoints, life
from backwire_server.storage.sharing import heartbeat, membership
from backwire_server.storage.sharing.membership import Membership
from backwire_server.storage.sharing.shared_vault import SharedVault


@pytest.fixture
def arm() -> Iterator[Callable[[str], object]]:
    """Arms failpoints until the end of the test."""
    yield failpoints.arm
    failpoints.disarm()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path) as made:
        yield made


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Boot:
    """Has the machine be under a boot of some name: `first`, until this is called."""

    def boot(name: str) -> None:
        monkeypatch.setattr(life, "this_machine", lambda: name)

    boot("first")
    return boot


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts another server on the directory."""
    started: list[Server] = []

    def start(replica: str) -> Server:
        started.append(Server(tmp_path, replica))
        return started[-1]

    yield start
    for each in started:
        each.store.close()


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """Has another server join those on the directory."""
    joined: list[SharedVault] = []

    def join(replica: str) -> SharedVault:
        found = SharedVault(tmp_path, replica=replica, lease=LEASE, default=Durability.JOURNAL, limits=Limits())
        found.announce(f"{replica}.example:50051")
        joined.append(found)
        return found

    yield join
    for each in joined:
        each.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (heartbeat, membership):
        monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def enlist(tmp_path: Path) -> Iterator[Enlist]:
    """Has servers enlist, with a lease that lets their threads sleep until the end."""
    joined: list[Membership] = []

    def enlist(replica: str) -> Membership:
        joined.append(Membership(tmp_path, replica, 1_000.0))
        return joined[-1]

    yield enlist
    for each in joined:
        each.leave()
