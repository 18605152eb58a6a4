"""Who gives signs of life is alive, and who gives none for as long as the lease is dead, by no clock but one's own."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backwire_server.storage import heartbeat, membership
from backwire_server.storage.membership import Membership
from backwire_server.storage.signs import Member

Join = Callable[[str], Membership]


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (heartbeat, membership):
        monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """Has servers join, with a lease that lets their threads sleep until the end."""
    joined: list[Membership] = []

    def join(replica: str) -> Membership:
        joined.append(Membership(tmp_path, replica, 1_000.0))
        return joined[-1]

    yield join
    for each in joined:
        each.leave()


def test_one_that_gives_signs_lives_and_tells_where_it_is(join: Join, clock: Clock) -> None:
    one, other = join("one"), join("other")
    for _ in range(3):
        clock.now += 900.0
        one.announce("one.example:1")
        found = other.alive("one", one.incarnation)
        assert found is not None
        assert found.address == "one.example:1"


def test_one_that_gives_no_sign_for_the_lease_is_dead_until_it_gives_one(join: Join, clock: Clock) -> None:
    one, other = join("one"), join("other")
    clock.now += 999.0
    assert other.alive("one") is not None
    clock.now += 2.0
    assert other.alive("one") is None
    one.announce("")
    assert other.alive("one") is not None


def test_one_lives_for_its_own_lease_whatever_that_of_the_other_is(tmp_path: Path, clock: Clock) -> None:
    one, other = Membership(tmp_path, "one", 1_000.0), Membership(tmp_path, "other", 5_000.0)
    try:
        assert other.alive("one") is not None
        assert one.alive("other") is not None
        clock.now += 1_001.0
        assert other.alive("one") is None
        assert one.alive("other") is not None
    finally:
        one.leave()
        other.leave()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_one_that_finds_the_disk_full_gives_signs_by_the_time_of_its_file(
    join: Join, clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    one, other = join("one"), join("other")
    assert other.alive("one") is not None

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(3):
        clock.now += 900.0
        one._heartbeat._beat_somehow()
        assert other.alive("one", one.incarnation) is not None


def test_one_lives_where_it_has_told_until_it_gives_no_sign_or_leaves(join: Join, clock: Clock) -> None:
    one, other = join("one"), join("other")
    one.announce("one.example:1")
    assert other.lives_at("one.example:1")
    assert not other.lives_at("two.example:1")
    clock.now += 900.0
    assert other.lives_at("one.example:1")
    clock.now += 101.0
    assert not other.lives_at("one.example:1")
    one.announce("one.example:1")
    assert other.lives_at("one.example:1")
    one.leave()
    clock.now += 300.0
    assert not other.lives_at("one.example:1")


@pytest.mark.parametrize("name", ["one", "again"])
def test_where_one_that_was_seen_was_another_lives_that_came_since(join: Join, clock: Clock, name: str) -> None:
    one, other = join("one"), join("other")
    one.announce("one.example:1")
    assert other.lives_at("one.example:1")
    one.leave()
    clock.now += 500.0
    join(name).announce("one.example:1")
    assert other.lives_at("one.example:1")


def test_one_whose_sign_is_late_is_waited_for_until_it_is_dead_or_gives_one(
    join: Join, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = join("one"), join("other")

    def passes(seconds: float) -> bool:
        clock.now += seconds
        return False

    def gives_one(seconds: float) -> bool:
        one.announce("one.example:1")
        return passes(seconds)

    clock.now += 999.5
    monkeypatch.setattr(other._left, "wait", gives_one)
    assert not other.outlasted("one", one.incarnation)
    clock.now += 999.5
    monkeypatch.setattr(other._left, "wait", passes)
    assert other.outlasted("one", one.incarnation)
    assert 2_099.5 <= clock.now <= 2_099.6


def test_who_waits_for_one_waits_no_longer_than_its_caller(join: Join, clock: Clock) -> None:
    class Over(Exception):
        pass

    def check() -> None:
        raise Over

    one, other = join("one"), join("other")
    clock.now += 999.5
    with pytest.raises(Over):
        other.outlasted("one", one.incarnation, check)
    assert other._waiting.acquire(blocking=False), "others can wait in its place"


@pytest.mark.parametrize("age", [0.0, 900.0, 998.5])
def test_one_whose_sign_is_not_late_or_that_is_not_dead_for_long_is_not_waited_for(
    join: Join, clock: Clock, age: float
) -> None:
    one, other = join("one"), join("other")
    clock.now += age
    assert not other.outlasted("one", one.incarnation)


def test_one_is_waited_for_by_so_many_at_a_time(join: Join, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MOST_WAITING", 0)
    one, other = join("one"), join("other")
    clock.now += 999.5
    assert not other.outlasted("one", one.incarnation)


def test_one_that_left_or_runs_anew_is_dead_as_soon_as_it_is_looked_at(join: Join, clock: Clock) -> None:
    one, other = join("one"), join("other")
    again = join("one")
    assert other.alive("one", one.incarnation) is None
    assert other.alive("one", again.incarnation) is not None
    again.leave()
    clock.now += 200.0
    assert other.alive("one") is None


def test_one_that_joined_a_moment_ago_is_known_when_it_is_asked_for(join: Join) -> None:
    other = join("other")
    one = join("one")
    assert other.alive("one", one.incarnation) is not None


def test_one_is_not_dead_because_the_other_did_not_look_for_long(join: Join, clock: Clock) -> None:
    one, other = join("one"), join("other")
    clock.now += 5_000.0
    one.announce("")
    assert other.alive("one") is not None
    clock.now += 5_000.0
    assert other.alive("one") is None


def test_one_that_is_asked_for_the_first_time_is_as_dead_as_its_sign_is_old(join: Join, tmp_path: Path) -> None:
    join("one")
    sign = tmp_path / "replicas" / "one"
    for age, lives in ((900, True), (1_100, False)):
        changed = sign.stat().st_mtime_ns - age * 10**9
        os.utime(sign, ns=(changed, changed))
        assert (join("other" if lives else "third").alive("one") is not None) is lives
        os.utime(sign, ns=(changed + age * 10**9, changed + age * 10**9))


def test_one_that_gave_a_sign_since_the_last_look_lives_though_the_file_system_has_another_time_for_it(
    join: Join, clock: Clock, tmp_path: Path
) -> None:
    one, other = join("one"), join("other")
    sign = tmp_path / "replicas" / "one"
    lives = []
    for _ in range(3):
        one.announce("")
        changed = sign.stat().st_mtime_ns - 5_000 * 10**9
        os.utime(sign, ns=(changed, changed))
        lives.append(other.alive("one") is not None)
        clock.now += 300.0
    assert lives == [False, True, True]
    clock.now += 6_000.0
    one.announce("")
    changed = sign.stat().st_mtime_ns - 5_000 * 10**9
    os.utime(sign, ns=(changed, changed))
    assert other.alive("one") is not None, "however long it was not looked at"
    clock.now += 1_000.0
    assert other.alive("one") is None


def test_a_file_system_that_tells_whole_seconds_alone_is_not_asked_how_old_a_sign_is(
    join: Join, tmp_path: Path
) -> None:
    join("one")
    other = join("other")
    for name, seconds in (("one", 1_000), ("other", 5_000)):
        os.utime(tmp_path / "replicas" / name, (seconds, seconds))
    assert other.alive("one") is not None


def test_who_is_not_asked_for_is_not_looked_at(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        join(f"one-{number}")
    other = join("other")
    looked: list[str] = []
    read = other._read

    def counted(name: str) -> Member | None:
        looked.append(name)
        return read(name)

    with monkeypatch.context() as changed:
        changed.setattr(other, "_read", counted)
        for _ in range(3):
            assert other.alive("one-3") is not None
    assert looked == ["one-3"]


def test_those_that_live_are_named(join: Join) -> None:
    one, _ = join("one"), join("other")
    assert one.names == ["one", "other"]


def test_nobody_counts_itself_among_the_others(join: Join) -> None:
    one = join("one")
    assert one.alive("one", one.incarnation) is None
    assert one.alive("nobody") is None


def test_a_file_that_is_no_sign_of_life_is_passed_over(join: Join, tmp_path: Path) -> None:
    one = join("one")
    (tmp_path / "replicas" / "torn").write_text('{"incarnation": "x"')
    (tmp_path / "replicas" / "other.tmp").write_text("{}")
    assert one.alive("torn") is None
