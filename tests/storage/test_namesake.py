"""The name of a server is that of one among those that share a directory."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backwire_server.storage import life, namesake
from backwire_server.storage.lock import REPLICAS, DirectoryInUse
from backwire_server.storage.membership import Membership

LEASE = 0.3
LONG = 3_600.0


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Membership]:
    found = Membership(tmp_path, "one", LEASE)
    found.announce("one.example:1")
    yield found
    found.leave()


@pytest.mark.usefixtures("one")
def test_a_name_that_nobody_had_is_free(tmp_path: Path) -> None:
    namesake.outlast(tmp_path, "other", LONG)


@pytest.mark.usefixtures("one")
def test_a_second_server_of_a_name_is_told_where_the_first_is(tmp_path: Path) -> None:
    told = r"--replica one uses the data directory, at one\.example:1; .*another name"
    with pytest.raises(DirectoryInUse, match=told):
        namesake.outlast(tmp_path, "one", LEASE, patience=0.1)


def test_the_name_of_one_that_is_about_to_end_is_waited_for(tmp_path: Path, one: Membership) -> None:
    ending = threading.Timer(0.2, one.leave)
    ending.start()
    namesake.outlast(tmp_path, "one", LEASE, patience=60.0)
    ending.join()
    assert not (tmp_path / REPLICAS / "one").exists()


@pytest.mark.parametrize("machine", ["another", ""])
def test_the_name_of_one_elsewhere_is_free_after_its_own_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr(life, "this_machine", lambda: machine)
    gone = Membership(tmp_path, "one", LEASE)
    monkeypatch.undo()
    monkeypatch.setattr(gone, "_read", lambda *_, **__: None)  # its sign stays
    gone.leave()
    began = time.monotonic()
    namesake.outlast(tmp_path, "one", LONG)
    assert time.monotonic() - began > LEASE / 2


def test_the_name_of_one_whose_sign_is_old_is_free_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "this_machine", lambda: "another")
    gone = Membership(tmp_path, "one", LONG)
    gone.leave()
    sign = tmp_path / REPLICAS / "one"
    gone._tell()
    old = sign.stat().st_mtime_ns - int((LONG + 1) * 1e9)
    os.utime(sign, ns=(old, old))
    monkeypatch.undo()
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    namesake.outlast(tmp_path, "one", LONG)
