"""Who gives signs of life is alive, and who gives none for as long as the lease is dead, by no clock but one's own."""

import errno
import os
from pathlib import Path

import pytest
from tests.storage.sharing.members import Clock, Enlist

from backwire_server.storage.sharing.membership import STALLED_SECONDS, Membership
from backwire_server.storage.sharing.signs import Member

pytestmark = pytest.mark.usefixtures("clock")


def test_one_that_gives_signs_lives_and_tells_where_it_is(enlist: Enlist, clock: Clock) -> None:
    one, other = enlist("one"), enlist("other")
    for _ in range(3):
        clock.now += 900.0
        one.announce("one.example:1")
        found = other.alive("one", one.incarnation)
        assert found is not None
        assert found.address == "one.example:1"


def test_one_that_gives_no_sign_for_the_lease_is_dead_until_it_gives_one(enlist: Enlist, clock: Clock) -> None:
    one, other = enlist("one"), enlist("other")
    clock.now += 999.0
    assert other.alive("one") is not None
    clock.now += 2.0
    assert other.alive("one") is None
    one.announce("")
    assert other.alive("one") is not None


def test_one_that_gives_no_sign_stalls_for_a_while_unless_it_has_ended(enlist: Enlist, clock: Clock) -> None:
    one, other = enlist("one"), enlist("other")
    assert not other.stalls("one")
    assert not other.stalls("nobody")
    clock.now += 1_001.0
    assert other.stalls("one")
    clock.now += STALLED_SECONDS
    assert not other.stalls("one")
    one.announce("")
    assert not other.stalls("one")
    clock.now += 1_001.0
    one.leave()
    assert not other.stalls("one")


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
    enlist: Enlist, clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    one, other = enlist("one"), enlist("other")
    assert other.alive("one") is not None

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(3):
        clock.now += 900.0
        one._heartbeat._beat_somehow()
        assert other.alive("one", one.incarnation) is not None


def test_one_lives_where_it_has_told_until_it_gives_no_sign_or_leaves(enlist: Enlist, clock: Clock) -> None:
    one, other = enlist("one"), enlist("other")
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
def test_where_one_that_was_seen_was_another_lives_that_came_since(enlist: Enlist, clock: Clock, name: str) -> None:
    one, other = enlist("one"), enlist("other")
    one.announce("one.example:1")
    assert other.lives_at("one.example:1")
    one.leave()
    clock.now += 500.0
    enlist(name).announce("one.example:1")
    assert other.lives_at("one.example:1")


def test_one_that_left_or_runs_anew_is_dead_as_soon_as_it_is_looked_at(enlist: Enlist, clock: Clock) -> None:
    one, other = enlist("one"), enlist("other")
    again = enlist("one")
    assert other.alive("one", one.incarnation) is None
    assert other.alive("one", again.incarnation) is not None
    again.leave()
    clock.now += 200.0
    assert other.alive("one") is None


def test_one_that_joined_a_moment_ago_is_known_when_it_is_asked_for(enlist: Enlist) -> None:
    other = enlist("other")
    one = enlist("one")
    assert other.alive("one", one.incarnation) is not None


def test_one_is_not_dead_because_the_other_did_not_look_for_long(enlist: Enlist, clock: Clock) -> None:
    one, other = enlist("one"), enlist("other")
    clock.now += 5_000.0
    one.announce("")
    assert other.alive("one") is not None
    clock.now += 5_000.0
    assert other.alive("one") is None


def test_one_that_is_asked_for_the_first_time_is_as_dead_as_its_sign_is_old(enlist: Enlist, tmp_path: Path) -> None:
    enlist("one")
    sign = tmp_path / "replicas" / "one"
    for age, lives in ((900, True), (1_100, False)):
        changed = sign.stat().st_mtime_ns - age * 10**9
        os.utime(sign, ns=(changed, changed))
        assert (enlist("other" if lives else "third").alive("one") is not None) is lives
        os.utime(sign, ns=(changed + age * 10**9, changed + age * 10**9))


def test_one_that_gave_a_sign_since_the_last_look_lives_though_the_file_system_has_another_time_for_it(
    enlist: Enlist, clock: Clock, tmp_path: Path
) -> None:
    one, other = enlist("one"), enlist("other")
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
    enlist: Enlist, tmp_path: Path
) -> None:
    enlist("one")
    other = enlist("other")
    for name, seconds in (("one", 1_000), ("other", 5_000)):
        os.utime(tmp_path / "replicas" / name, (seconds, seconds))
    assert other.alive("one") is not None


def test_who_is_not_asked_for_is_not_looked_at(enlist: Enlist, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        enlist(f"one-{number}")
    other = enlist("other")
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


def test_those_that_live_are_named(enlist: Enlist) -> None:
    one, _ = enlist("one"), enlist("other")
    assert one.names == ["one", "other"]


def test_nobody_counts_itself_among_the_others(enlist: Enlist) -> None:
    one = enlist("one")
    assert one.alive("one", one.incarnation) is None
    assert one.alive("nobody") is None


def test_a_file_that_is_no_sign_of_life_is_passed_over(enlist: Enlist, tmp_path: Path) -> None:
    one = enlist("one")
    (tmp_path / "replicas" / "torn").write_text('{"incarnation": "x"')
    (tmp_path / "replicas" / "other.tmp").write_text("{}")
    assert one.alive("torn") is None
