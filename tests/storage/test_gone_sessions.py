"""A loss of power takes new sessions altogether of which nothing can be made; what is left of them is set aside."""

import errno
import os
from pathlib import Path

import pytest
from tests.storage.journal.power import Boot, Disk
from tests.storage.journal.torn import content, lose_record
from tests.storage.toy import KEY, append, checkpoint, create, history, names, spec, vault

from backwire_server.sessions.errors import SessionQuarantined
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.journal import power_loss
from backwire_server.storage.journal.segment import file_name


def test_a_branch_whose_beginning_was_torn_is_gone_and_so_is_a_session_of_which_nothing_is_there(
    tmp_path: Path, boot: Boot, caplog: pytest.LogCaptureFixture
) -> None:
    home = vault(tmp_path)
    files = home.create("a", spec(), Durability.JOURNAL, KEY)
    append(files, 1, 2)
    for name in ("b", "c"):
        files.fork(name, None).close()
    files.close()
    for name in ("d", "e", "f"):
        home.create(name, spec(), Durability.JOURNAL, KEY).close()
    sessions = tmp_path / "sessions"
    lose_record(1, 2)(sessions / "a")  # and so of b and c
    checkpoint(home.open("c"), 1, 2)
    for path in [*(sessions / "d").iterdir(), sessions / "e" / "session.binpb", sessions / "f" / file_name(1)]:
        os.truncate(path, 0)
    before = names(sessions)
    left = {name: content(sessions / name) for name in ("b", "d", "e")}
    assert [entry.session_id for entry in vault(tmp_path).entries()] == [name for name in before if name != "d"]
    boot("second")
    home = vault(tmp_path)
    assert {entry.session_id for entry in home.entries()} == {"a", "c", "f"}
    assert names(sessions) == ["a", "c", "f"]
    assert {name: content(tmp_path / "lost" / name) for name in names(tmp_path / "lost")} == left
    assert [name for name in before if f"session {name} is gone" in caplog.text] == ["b", "d", "e"]
    assert home.usage.tally.power_losses == 2, "d was gone before"
    assert history(home.open("f").recover()) == []
    assert history(home.open("c").recover()) == [1, 2]


def test_a_session_that_cannot_be_read_stays_and_keeps_no_other_from_being_found(
    tmp_path: Path, boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    home = vault(tmp_path)
    for name in ("a", "b"):
        home.create(name, spec(), Durability.JOURNAL, KEY).close()
    os.truncate(tmp_path / "sessions" / "a" / "session.binpb", 0)
    boot("second")
    monkeypatch.setattr(power_loss, "header_of", fail)
    assert {entry.session_id for entry in vault(tmp_path).entries()} == {"a", "b"}


def test_a_session_is_whole_or_gone_however_many_of_its_names_a_loss_of_power_left(
    tmp_path: Path, boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    disk = Disk(root)
    with disk.recording():
        home = vault(root)
        files = home.create("a", spec(), Durability.JOURNAL, KEY)
        append(files, 1)
        checkpoint(files, 1)
        files.fork("b", None).close()
        home.create("c", spec(), Durability.FSYNC).close()  # which has the names of sessions flushed
    boot("second")
    for name in ("fsync", "fdatasync"):  # which take most of the time
        monkeypatch.setattr(os, name, lambda _: None)
    seen = set()
    for moment in range(disk.moment + 1):
        for count in range(moment % 2, 8, 2):  # half of them, in turn
            left = tmp_path / f"left-{moment}-{count}"
            left.mkdir()
            disk.left(moment, left, names=count.__gt__, data=1.0)
            home = vault(left)
            for entry in home.entries():
                seen.add(entry.session_id)
                assert history(home.open(entry.session_id).recover()) in ([], [1]), (moment, count)
    assert seen == {"a", "b", "c"}


def test_a_session_without_the_name_of_its_journal_is_gone(tmp_path: Path, boot: Boot) -> None:
    create(tmp_path).close()
    (tmp_path / "sessions" / "a" / file_name(1)).unlink()
    assert [entry.session_id for entry in vault(tmp_path).entries()] == ["a"]
    boot("second")
    assert vault(tmp_path).entries() == []


def test_a_session_that_cannot_be_set_aside_stays(tmp_path: Path, boot: Boot) -> None:
    home = vault(tmp_path)
    for name in ("a", "b"):
        home.create(name, spec(), Durability.JOURNAL, KEY).close()
    os.truncate(tmp_path / "sessions" / "a" / "session.binpb", 0)
    boot("second")
    (tmp_path / "lost").write_bytes(b"")
    home = vault(tmp_path)
    assert {entry.session_id for entry in home.entries()} == {"a", "b"}
    with pytest.raises(SessionQuarantined):
        home.open("a").spec()


def test_what_is_left_of_a_session_does_not_take_the_place_of_what_is_left_of_another(
    tmp_path: Path, boot: Boot
) -> None:
    for now in ("second", "third"):
        vault(tmp_path).create("a", spec(), Durability.JOURNAL, KEY).close()
        os.truncate(tmp_path / "sessions" / "a" / "session.binpb", 0)
        boot(now)
        assert vault(tmp_path).entries() == []
    assert names(tmp_path / "lost") == ["a", "a~2"]


@pytest.mark.parametrize("lost", ["manifest.json", "session.binpb"])
def test_a_session_that_has_gone_on_since_or_has_a_checkpoint_does_not_go(
    tmp_path: Path, boot: Boot, lost: str
) -> None:
    home = vault(tmp_path)
    for name in ("a", "b"):
        files = home.create(name, spec(), Durability.JOURNAL, KEY)
        append(files, 1)
        if name == "a":
            checkpoint(files, 1)
        files.close()
    boot("second")
    append(home.open("b"), 2)
    files = vault(tmp_path).open("b")
    files.recover()
    append(files, 2)
    files.close()
    boot("third")
    for name in ("a", "b"):
        os.truncate(tmp_path / "sessions" / name / lost, 0)
    home = vault(tmp_path)
    assert {entry.session_id for entry in home.entries()} == {"a", "b"}
    for name in ("a", "b"):
        with pytest.raises(SessionQuarantined, match=lost):
            home.open(name).spec()
