"""A worker has fallen silent when its sign stays the same, as far as signs can be seen at all."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backwire_server.cluster.signs import Signs
from backwire_server.storage.sharing.membership import Membership

BOTH = ("worker-0", "worker-1")


class Site:
    """Two workers that share a directory, whose clock goes on when the test says so."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.signs = Signs(str(directory), 1.0)
        self.workers = [Membership(directory, name, 3_600.0) for name in BOTH]
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def later(self, seconds: float, *live: int) -> set[str]:
        """Returns who is silent so much later, when some have given a sign."""
        self.now += seconds
        for number in live:
            self.workers[number].announce("")
        return self.signs.silent(BOTH)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path, monkeypatch)
    yield made
    for each in made.workers:
        each.leave()


def test_one_is_silent_after_the_lease_until_it_gives_a_sign(site: Site) -> None:
    assert site.later(0.0) == set()
    assert site.later(0.9, 0) == set()
    assert site.later(0.1, 0) == {"worker-1"}
    assert site.later(0.1, 0, 1) == set()


def test_none_is_silent_where_all_are_or_nothing_can_be_read(site: Site, tmp_path: Path) -> None:
    assert [site.later(seconds) for seconds in (0.0, 2.0)] == [set(), set()]
    (tmp_path / "replicas" / "worker-1").unlink()
    assert [site.later(seconds) for seconds in (0.0, 2.0)] == [set(), set()]
    assert Signs(str(tmp_path / "elsewhere"), 1.0).silent(BOTH) == set()


def test_one_that_was_not_looked_at_for_long_is_not_silent(site: Site) -> None:
    assert [site.later(0.0), site.later(60.0, 0, 1), site.later(0.9)] == [set(), set(), set()]
