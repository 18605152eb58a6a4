"""At `fsync`, what was acknowledged outlives a loss of power at any moment, whatever the disk had not yet been told."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.storage.journal.power import Disk
from tests.storage.sharing.fenced import LEASE
from tests.storage.toy import KEY, append, checkpoint, history, image, spec

from backwire_server.sessions.errors import SessionNotFound
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.storage.session_files import FileSession
from backwire_server.storage.sharing.shared_vault import SharedVault
from backwire_server.storage.vault import FileVault

Vault = FileVault | SharedVault
Join = Callable[[Path, str], Vault]

DELETION = RequestKey("delete", b"\x07")

LEFT = [(False, 0.0), (False, 1.0), (True, 0.0), (True, 0.5)]
"""Whether names that were not flushed are there, and which share of such writes."""

HISTORIES = {"a": [1, 2, 3, 4, 5, 6, 7, 8], "b": [1, 2, 3, 4, 5, 6, 50]}


def alone(directory: Path, _: str) -> FileVault:
    return FileVault(directory, default=Durability.JOURNAL, limits=Limits())


def shared(directory: Path, replica: str) -> SharedVault:
    for sign in directory.glob("replicas/[a-z]*"):  # whoever lived before is dead
        sign.unlink()
    return SharedVault(directory, replica=replica, lease=LEASE, default=Durability.JOURNAL, limits=Limits())


class Life:
    """What sessions go through, and which of it was acknowledged, or begun, when."""

    def __init__(self, root: Path, join: Join) -> None:
        self.disk = Disk(root)
        self._told: list[tuple[int, str, object]] = []
        with self.disk.recording(), closing(join(root, "one")) as vault:
            self._live(vault)

    def told(self, moment: int) -> Iterator[tuple[str, object]]:
        """Yields what was acknowledged or begun before a moment."""
        return ((what, value) for when, what, value in self._told if when <= moment)

    def _live(self, vault: Vault) -> None:
        files = vault.create("a", spec(), Durability.FSYNC, KEY)
        self._tell("a", 0)
        self._append(files, 1, 2)
        checkpoint(files, 1, 2)
        self._append(files, 3, 4)
        files.save("kept", image([1, 2, 3, 4])).result()
        self._tell("kept", [1, 2, 3, 4])
        self._append(files, 5)
        checkpoint(files, 1, 2, 3, 4, 5)
        self._append(files, 6)
        branch = files.fork("b", None)
        self._tell("b", 0)
        append(branch, 50)
        self._tell("b", 50)
        self._append(files, 7)
        self._tell("removing kept", None)
        files.delete_checkpoint("kept")
        self._tell("removed kept", None)
        files.close()
        branch.close()
        files = vault.open("a")
        files.recover()
        self._append(files, 8)
        checkpoint(files, 1, 2, 3, 4, 5, 6, 7, 8)
        files.close()
        self._tell("deleting b", None)
        vault.delete("b", DELETION)
        self._tell("deleted b", None)

    def _append(self, files: FileSession, *values: int) -> None:
        for value in values:
            append(files, value)
            self._tell("a", value)

    def _tell(self, what: str, value: object) -> None:
        self._told.append((self.disk.moment, what, value))


@pytest.mark.parametrize(("join", "every"), [(alone, 1), (shared, 2)])
def test_all_that_was_acknowledged_outlives_a_loss_of_power_at_any_moment(
    tmp_path: Path, join: Join, every: int
) -> None:
    life = Life(tmp_path, join)
    assert life.disk.moment > 150
    for moment in range(0, life.disk.moment + 1, every):
        for names, data in LEFT:
            with TemporaryDirectory(dir=tmp_path) as left:
                life.disk.left(moment, Path(left), names=names, data=data)
                try:
                    with closing(join(Path(left), "two")) as vault:
                        _check(vault, dict(life.told(moment)))
                except Exception as error:
                    raise AssertionError(f"after {moment} changes, {names=}, {data=}: {error!r}") from error


def _check(vault: Vault, told: dict[str, object]) -> None:
    for session_id, values in HISTORIES.items():
        if f"deleting {session_id}" not in told:
            _check_session(vault, session_id, values, told)
        elif f"deleted {session_id}" in told:
            with pytest.raises(SessionNotFound):
                vault.open(session_id)
            assert vault.deletions() == [(session_id, DELETION)]


def _check_session(vault: Vault, session_id: str, values: list[int], told: dict[str, object]) -> None:
    try:
        files = vault.open(session_id)
    except SessionNotFound:
        assert session_id not in told
        return
    found = history(files.recover())
    assert found == values[: len(found)]
    assert told.get(session_id, 0) in [0, *found]
    kept = [each.name for each in files.checkpoints() if each.name]
    if session_id == "a" and "kept" in told and "removing kept" not in told:
        with files.load("kept") as saved:
            assert list(saved.state.parameters["w"]) == told["kept"]
    assert "removed kept" not in told or kept == []
    append(files, 99)
    files.close()
    files = vault.open(session_id)
    assert history(files.recover()) == [*found, 99]
    files.close()
