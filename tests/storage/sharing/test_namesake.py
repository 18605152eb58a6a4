"""The name of a server is that of one among those that share a directory."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backwire_server.storage import life
from backwire_server.storage.lock import REPLICAS, DirectoryInUse
from backwire_server.storage.sharing import namesake
from backwire_server.storage.sharing.membership import Membership

LEASE = 3_600.0
SHARE = 8


class Clock:
    """Time of which a share of the lease passes when somebody sleeps; `meanwhile` is done then."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += LEASE / SHARE
        self.sleeps += 1
        self.meanwhile()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(namesake, "time", found)
    return found


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Membership]:
    found = Membership(tmp_path, "one", LEASE)
    found.announce("one.example:1")
    yield found
    found.leave()


@pytest.mark.usefixtures("one")
def test_a_name_that_nobody_had_is_free(tmp_path: Path, clock: Clock) -> None:
    namesake.outlast(tmp_path, "other", LEASE)
    assert clock.sleeps == 0


def test_a_second_server_of_a_name_is_told_where_the_first_is(tmp_path: Path, one: Membership, clock: Clock) -> None:
    clock.meanwhile = lambda: one.announce("one.example:1")
    told = r"^another server with --replica one uses the data directory .*, at one\.example:1; .*another name"
    with pytest.raises(DirectoryInUse, match=told):
        namesake.outlast(tmp_path, "one", LEASE)
    assert clock.sleeps == SHARE + 1


def test_the_name_of_one_that_is_about_to_end_is_waited_for(tmp_path: Path, one: Membership, clock: Clock) -> None:
    clock.meanwhile = one.leave
    namesake.outlast(tmp_path, "one", LEASE)
    assert clock.sleeps == 1
    assert not (tmp_path / REPLICAS / "one").exists()


@pytest.mark.parametrize("machine", ["another", ""])
def test_the_name_of_one_elsewhere_is_free_after_its_own_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, machine: str
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(life, "this_machine", lambda: machine)
        gone = Membership(tmp_path, "one", LEASE)
    monkeypatch.setattr(gone._heartbeat, "_read", lambda **_: None)  # its sign stays
    gone.leave()
    namesake.outlast(tmp_path, "one", 1.0)
    assert clock.sleeps == SHARE


def test_the_name_of_one_whose_sign_is_old_is_free_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(life, "this_machine", lambda: "another")
        gone = Membership(tmp_path, "one", LEASE)
    gone.leave()
    sign = tmp_path / REPLICAS / "one"
    gone._heartbeat._tell()
    old = sign.stat().st_mtime_ns - int((LEASE + 1) * 1e9)
    os.utime(sign, ns=(old, old))
    namesake.outlast(tmp_path, "one", LEASE)
    assert clock.sleeps == 0
