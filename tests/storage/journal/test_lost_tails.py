"""At `journal`, a session goes on after a loss of power from a state that it had, and damage stays damage."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.storage.journal.power import Boot, Disk, Share
from tests.storage.toy import KEY, append, checkpoint, history, image, spec, vault

from backwire_server.sessions.errors import SessionNotFound
from backwire_server.storage.vault import FileVault

HISTORIES = {"a": [1, 2, 3, 4, 5, 6, 7, 8, 9], "b": [1, 2, 3, 4, 5, 6, 50, 51], "c": [1, 2, 60], "d": [70]}
BEGUN = {"a": 0, "b": 6, "c": 2, "d": 0}
"""With how many values of their histories the sessions began."""


def _ahead(_: int, number: int, count: int) -> float:
    """The first of the writes, and a part of the one in the middle, as when they were written in their order."""
    return 1.0 if number < count // 2 else 0.4 * (number > 0 and number == count // 2)


WAYS: list[tuple[bool, float | Share]] = [
    (True, 0.0),
    (True, _ahead),
    (True, lambda file, *_: float(file % 2)),
    (True, lambda file, number, _: float((file + number) % 2)),
    (True, lambda file, number, count: float(file % 3 != number % 3 or number == count - 1)),
    (True, lambda _, number, __: float(number != 0)),
    (False, 0.0),
    (False, 1.0),
]
"""Whether names that were not flushed are there, and what is of such writes: some files, some writes, no beginnings."""


class Life:
    """What sessions go through, and which of it was acknowledged, and is on the disk, when."""

    def __init__(self, root: Path) -> None:
        self.disk = Disk(root)
        self._told: list[tuple[int, str, int]] = []
        with self.disk.recording(), closing(vault(root)) as home:
            self._live(home)

    def assured(self, moment: int) -> dict[str, int]:
        """Tells how many values of its history a session must have."""
        return {name: number for when, name, number in self._told if when <= moment}

    def _live(self, home: FileVault) -> None:
        files = home.create("a", spec(), home.default, KEY)
        append(files, 1, 2)
        files.fork("c", None).close()
        append(files, 3)
        branch = home.open("c")
        branch.recover()
        append(branch, 60)
        branch.close()
        checkpoint(files, 1, 2, 3)
        self._assure("a", 3)
        append(files, 4)
        files.save("kept", image([1, 2, 3, 4])).result()
        self._assure("a", 4)
        append(files, 5)
        files._journal.rotate()  # as for a checkpoint that cannot be written
        append(files, 6)
        branch = files.fork("b", None)
        append(branch, 50, 51)
        append(files, 7)
        home.create("d", spec(), home.default, None, image([70])).close()
        self._assure("d", 1)
        checkpoint(branch, 1, 2, 3, 4, 5, 6, 50, 51)
        self._assure("b", 8)
        append(files, 8)
        files.close()
        files = home.open("a")
        files.recover()
        append(files, 9)
        files.close()
        branch.close()

    def _assure(self, name: str, number: int) -> None:
        self._told.append((self.disk.moment, name, number))


def test_a_session_goes_on_from_a_state_that_it_had_whatever_a_loss_of_power_left(
    tmp_path: Path, boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path)
    assert life.disk.moment > 100
    boot("second")
    for name in ("fsync", "fdatasync"):  # which take most of the time, and there is no other loss
        monkeypatch.setattr(os, name, lambda _: None)
    seen: set[tuple[str, int]] = set()
    for moment in range(life.disk.moment + 1):
        for number, (names, data) in enumerate(WAYS):
            if (moment + number) % 2 and moment < life.disk.moment:  # half of them, in turn, and all of the last
                continue
            with TemporaryDirectory(dir=tmp_path) as left:
                life.disk.left(moment, Path(left), names=names, data=data)
                try:
                    with closing(vault(Path(left))) as home:
                        seen.update(_goes_on(home, life.assured(moment)))
                except Exception as error:
                    raise AssertionError(f"after {moment} changes, in way {number}: {error!r}") from error
    assert {("a", number) for number in (0, 1, 3, 4, 5, 6, 7)} <= seen
    assert {("b", 6), ("b", 8), ("c", 3), ("d", 1)} <= seen


def _goes_on(home: FileVault, assured: dict[str, int]) -> Iterator[tuple[str, int]]:
    there = [each.session_id for each in home.entries()]
    for name, values in HISTORIES.items():
        if name not in there:
            assert name not in assured
            with pytest.raises(SessionNotFound):
                home.open(name)
            continue
        files = home.open(name)
        found = history(files.recover())
        assert found == values[: len(found)], name
        assert len(found) >= max(BEGUN[name], assured.get(name, 0)), name
        if name == "a" and assured.get("a", 0) >= 4:
            files.load("kept").close()
        append(files, 99)
        files.close()
        assert history(home.open(name).recover()) == [*found, 99], name
        yield name, len(found)
