"""On one machine, servers see at once that the process of another has ended, however long the lease."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backwire_server.storage import life
from backwire_server.storage.lock import REPLICAS
from backwire_server.storage.sharing.membership import Membership

LEASE = 3_600.0
JOIN = """
import sys
from pathlib import Path
from backwire_server.storage.sharing.membership import Membership
Membership(Path(sys.argv[1]), "one", float(sys.argv[2])).announce("one.example:1")
print("joined", flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(not life.this_machine(), reason="this machine does not tell which it is")


@pytest.fixture
def one(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that joins as `one`, and lives until it is killed."""
    command = [sys.executable, "-c", JOIN, str(tmp_path), str(LEASE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
        yield process
        process.kill()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Membership]:
    found = Membership(tmp_path, "other", LEASE)
    yield found
    found.leave()


def test_one_that_is_killed_is_dead_at_once(one: "subprocess.Popen[str]", other: Membership) -> None:
    alive = other.alive("one")
    assert alive is not None
    assert alive.address == "one.example:1"
    one.kill()
    one.wait()
    assert other.alive("one") is None
    assert other.alive("one", alive.incarnation) is None


def test_one_of_another_machine_lives_until_its_lease_has_passed(
    one: "subprocess.Popen[str]", other: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "this_machine", lambda: "another")
    one.kill()
    one.wait()
    assert other.alive("one") is not None


def test_one_without_locks_lives_until_its_lease_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        one = Membership(tmp_path, "one", LEASE)
    other = Membership(tmp_path, "other", LEASE)
    try:
        assert one.me.machine == ""
        assert other.alive("one", one.incarnation) is not None
    finally:
        other.leave()
        one.leave()


def test_what_a_run_that_was_killed_has_left_goes_when_the_next_begins(
    tmp_path: Path, one: "subprocess.Popen[str]"
) -> None:
    one.kill()
    one.wait()
    again = Membership(tmp_path, "one", LEASE)
    assert sorted(path.name for path in (tmp_path / REPLICAS).iterdir()) == [
        "one",
        f"one.{again.incarnation}{life.SUFFIX}",
    ]
    again.leave()
    assert list((tmp_path / REPLICAS).iterdir()) == []
