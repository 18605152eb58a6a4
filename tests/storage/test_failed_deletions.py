"""A session whose deletion failed may be deleted again, or goes on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage.durable import Disk, create, do, key_of, killed, standing

from backwire_server.sessions import errors
from backwire_server.sessions.scope import UNBOUNDED


@pytest.mark.parametrize("place", ["deletion.half", "delete.noted"])
def test_a_deletion_that_failed_may_be_repeated(disk: Disk, arm: Callable[[str], object], place: str) -> None:
    session = create(disk.open())
    do(session, "train")
    before = standing(session)
    arm(f"{place}=EIO")
    with pytest.raises(errors.StorageFailed):
        disk.store.delete(UNBOUNDED, session.session_id, key_of("delete"))
    assert standing(session) == before
    disk.store.delete(UNBOUNDED, session.session_id, key_of("delete"))
    assert (disk.files(), disk.store.budget.used) == ({}, 0)
    disk.open().delete(UNBOUNDED, session.session_id, key_of("delete"))


@pytest.mark.parametrize("place", ["delete.noted", "rename"])
def test_a_session_whose_deletion_failed_goes_on_and_outlives_the_server(
    disk: Disk, arm: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    session, undisturbed = create(disk.open()), disk.undisturbed()
    with monkeypatch.context() as failing:
        if place == "rename":
            failing.setattr(os, "rename", _refusing(session.session_id))
        else:
            arm(f"{place}=EIO")
        with pytest.raises(errors.StorageFailed):
            disk.store.delete(UNBOUNDED, session.session_id, key_of("delete"))
    do(session, "train")
    do(undisturbed, "train")
    again = killed(disk, session)
    assert standing(again) == standing(undisturbed)
    disk.store.delete(UNBOUNDED, session.session_id, key_of("delete"))
    assert disk.files() == {}


def _refusing(name: str) -> Callable[[Path, Path], None]:
    """A `os.rename` by a disk that does not let a directory of this name have another one."""

    def rename(before: Path, after: Path, rename: Callable[[Path, Path], None] = os.rename) -> None:
        if before.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(before, after)

    return rename
