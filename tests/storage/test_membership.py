"""Who gives signs of life is alive, and who gives none for as long as the lease is dead, by no clock but one's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backwire_server.storage import membership
from backwire_server.storage.membership import Membership

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
    monkeypatch.setattr(membership, "time", found)
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
        other._look()
        found = other.alive("one", one.incarnation)
        assert found is not None
        assert found.address == "one.example:1"


def test_one_that_gives_no_sign_for_the_lease_is_dead_until_it_gives_one(join: Join, clock: Clock) -> None:
    one, other = join("one"), join("other")
    clock.now += 999.0
    other._look()
    assert other.alive("one") is not None
    clock.now += 2.0
    other._look()
    assert other.alive("one") is None
    one.announce("")
    other._look()
    assert other.alive("one") is not None


def test_one_that_left_or_runs_anew_is_dead_at_once(join: Join) -> None:
    one, other = join("one"), join("other")
    again = join("one")
    other._look()
    assert other.alive("one", one.incarnation) is None
    assert other.alive("one", again.incarnation) is not None
    again.leave()
    other._look()
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


def test_nobody_counts_itself_among_the_others(join: Join) -> None:
    one = join("one")
    one._look()
    assert one.alive("one", one.incarnation) is None
    assert one.alive("nobody") is None


def test_a_file_that_is_no_sign_of_life_is_passed_over(join: Join, tmp_path: Path) -> None:
    one = join("one")
    (tmp_path / "replicas" / "torn").write_text('{"incarnation": "x"')
    (tmp_path / "replicas" / "other.tmp").write_text("{}")
    one._look()
    assert one.alive("torn") is None
