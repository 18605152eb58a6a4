"""Who wants the session of a server whose sign is late waits until that is dead or gives one, but not for long."""

import os
from pathlib import Path

import pytest
from tests.storage.sharing.members import Clock, Enlist

from backwire_server.storage.sharing import membership
from backwire_server.storage.sharing.heartbeat import BEATS
from backwire_server.storage.sharing.membership import Membership

pytestmark = pytest.mark.usefixtures("clock")


def test_one_whose_sign_is_late_is_waited_for_until_it_is_dead_or_gives_one(
    enlist: Enlist, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = enlist("one"), enlist("other")

    def passes(seconds: float) -> bool:
        clock.now += seconds
        return False

    def gives_one(seconds: float) -> bool:
        one.announce("one.example:1")
        return passes(seconds)

    assert other.alive("one") is not None
    clock.now += 999.5
    monkeypatch.setattr(other._left, "wait", gives_one)
    assert not other.outlasted("one", one.incarnation)
    clock.now += 999.5
    monkeypatch.setattr(other._left, "wait", passes)
    assert other.outlasted("one", one.incarnation)
    assert 2_099.5 <= clock.now <= 2_099.6


@pytest.mark.parametrize("lives", [True, False])
def test_one_whose_sign_is_old_by_the_file_system_alone_is_dead_once_another_would_have_come(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    lease = 3.0
    one, other = Membership(tmp_path, "one", lease), Membership(tmp_path, "other", lease)
    for each in (one, other):  # whose threads would give signs
        each._heartbeat._stopping.set()
        each._heartbeat._thread.join()
    sign = tmp_path / "replicas" / "one"

    def passes(seconds: float) -> bool:
        clock.now += seconds
        if lives and clock.now >= began + lease / BEATS:
            one.announce("one.example:1")
            age(sign)
        return False

    def age(path: Path) -> None:
        changed = path.stat().st_mtime_ns - 5_000 * 10**9
        os.utime(path, ns=(changed, changed))

    age(sign)
    assert other.alive("one") is None
    began = clock.now
    monkeypatch.setattr(other._left, "wait", passes)
    assert other.outlasted("one", one.incarnation) is not lives
    assert lease / BEATS <= clock.now - began <= lease / BEATS * 2
    assert (other.alive("one") is not None) is lives
    for each in (one, other):
        each.leave()


def test_who_waits_for_one_waits_no_longer_than_its_caller(enlist: Enlist, clock: Clock) -> None:
    class Over(Exception):
        pass

    def check() -> None:
        raise Over

    one, other = enlist("one"), enlist("other")
    assert other.alive("one") is not None
    clock.now += 999.5
    with pytest.raises(Over):
        other.outlasted("one", one.incarnation, check)
    assert other._waiting.acquire(blocking=False), "others can wait in its place"


@pytest.mark.parametrize("age", [0.0, 900.0, 998.5])
def test_one_whose_sign_is_not_late_or_that_is_not_dead_for_long_is_not_waited_for(
    enlist: Enlist, clock: Clock, age: float
) -> None:
    one, other = enlist("one"), enlist("other")
    clock.now += age
    assert not other.outlasted("one", one.incarnation)


def test_one_is_waited_for_by_so_many_at_a_time(enlist: Enlist, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MOST_WAITING", 0)
    one, other = enlist("one"), enlist("other")
    clock.now += 999.5
    assert not other.outlasted("one", one.incarnation)
