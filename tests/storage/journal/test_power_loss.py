"""What a loss of power tore is told from damage by the boot under which it was written; what was flushed is kept."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest
from tests.storage.journal.power import Boot, Disk
from tests.storage.journal.torn import Tear, blank, content, cut_after, lived, lose_record
from tests.storage.toy import (
    append,
    checkpoint,
    create,
    history,
    image,
    names,
    reopened,
    vault,
)

from backwire_server.sessions.errors import OutOfMemory, SessionQuarantined
from backwire_server.sessions.info import Home
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.store.store import SessionStore
from backwire_server.storage.disk import size_of
from backwire_server.storage.journal.segment import file_name
from backwire_server.storage.verification import verify_session

TEARS: dict[str, tuple[Tear, int]] = {
    "zeros within the last segment": (lose_record(6, 1), 5),
    "zeros within the first": (lose_record(1, 2), 1),
    "zeros at the end of the first": (lose_record(1, 3), 2),
    "a record of the first cut short": (cut_after(1, 2, 5), 2),
    "records missing of the one in the middle": (cut_after(4, 1), 4),
    "all records missing of the one in the middle": (cut_after(4, 0), 3),
    "no beginning of the one in the middle": (lose_record(4, 0), 3),
    "no beginning of the first": (lambda session: blank(session / file_name(1), 0, 40), 0),
    "nothing of the first": (lambda session: os.truncate(session / file_name(1), 0), 0),
    "nothing of the one in the middle": (lambda session: os.truncate(session / file_name(4), 0), 3),
    "no name of the one in the middle": (lambda session: (session / file_name(4)).unlink(), 3),
}
"""What a loss of power leaves of a session that `lived`, and how many of its values come before."""


@pytest.mark.parametrize("what", TEARS)
def test_a_session_goes_on_before_what_was_torn_and_is_whole_from_then_on(
    tmp_path: Path, boot: Boot, what: str
) -> None:
    tear, kept = TEARS[what]
    session = lived(tmp_path)
    tear(session)
    boot("second")
    home = vault(tmp_path, max_disk_bytes=1 << 20)
    before = size_of(session)
    files = home.open("a")
    found = files.recover()
    assert history(found) == list(range(1, kept + 1))
    assert found.loss is not None
    assert (found.loss.record, found.loss.nbytes > 0) == (kept, True)
    assert 1 <= found.loss.records <= 7 - kept
    assert home.usage.tally.power_losses == 1
    assert size_of(session) < before
    append(files, 8)
    files.close()
    assert home.usage.total == size_of(session)
    files = reopened(tmp_path)
    found = files.recover()
    assert (history(found), found.loss) == ([*range(1, kept + 1), 8], None)
    checkpoint(files, 70, 80)
    append(files, 9)
    assert history(reopened(tmp_path).recover()) == [70, 80, 9]


@pytest.mark.parametrize("what", TEARS)
@pytest.mark.parametrize("now", ["first", ""])
def test_the_same_is_damage_under_the_same_boot_or_where_none_is_known(
    tmp_path: Path, boot: Boot, what: str, now: str
) -> None:
    session = lived(tmp_path)
    TEARS[what][0](session)
    before = content(session)
    boot(now)
    with pytest.raises(SessionQuarantined):
        reopened(tmp_path).recover()
    assert content(session) == before


def test_at_fsync_and_without_a_boot_in_the_files_it_is_damage(tmp_path: Path, boot: Boot) -> None:
    boot("")
    old = lived(tmp_path / "old")
    boot("first")
    flushed = lived(tmp_path / "flushed", Durability.FSYNC)
    boot("second")
    for session in (old, flushed):
        lose_record(1, 2)(session)
        before = content(session)
        with pytest.raises(SessionQuarantined, match="other segments follow"):
            reopened(session.parents[1]).recover()
        assert content(session) == before


def test_files_without_a_boot_are_read_and_another_segment_is_begun_for_what_follows(
    tmp_path: Path, boot: Boot
) -> None:
    boot("")
    session = lived(tmp_path)
    boot("first")
    files = reopened(tmp_path)
    assert history(files.recover()) == [1, 2, 3, 4, 5, 6, 7]
    append(files, 8)
    files.close()
    assert names(session)[:4] == [file_name(1), file_name(4), file_name(6), file_name(8)]
    boot("second")
    lose_record(8, 1)(session)
    assert history(reopened(tmp_path).recover()) == [1, 2, 3, 4, 5, 6, 7]


def test_what_was_whole_under_a_later_boot_is_on_the_disk_so_that_what_is_torn_of_it_is_damaged(
    tmp_path: Path, boot: Boot
) -> None:
    session = lived(tmp_path)
    for name in ("second", "third"):
        boot(name)
        files = reopened(tmp_path)
        files.recover()
        append(files, 8)
        files.close()
    boot("fourth")
    whole = content(session)
    for first, number in [(6, 2), (8, 1)]:
        lose_record(first, number)(session)
        with pytest.raises(SessionQuarantined):
            reopened(tmp_path).recover()
        (session / file_name(first)).write_bytes(whole[file_name(first)])
    lose_record(9, 1)(session)
    assert history(reopened(tmp_path).recover()) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("name", ["", "saved"])
def test_records_before_a_checkpoint_were_flushed_so_that_what_is_torn_of_them_is_damaged(
    tmp_path: Path, boot: Boot, name: str
) -> None:
    files = create(tmp_path)
    append(files, 1)
    checkpoint(files, 1)
    append(files, 2, 3)
    if name:
        files.save(name, image([1, 2, 3])).result()
    append(files, 4)
    files.close()
    session = tmp_path / "sessions" / "a"
    boot("second")
    lose_record(2, 1)(session)
    if name:
        with pytest.raises(SessionQuarantined):
            reopened(tmp_path).recover()
    else:
        assert history(reopened(tmp_path).recover()) == [1]


@pytest.mark.parametrize("durability", [Durability.JOURNAL, Durability.FSYNC])
@pytest.mark.parametrize(("now", "more"), [("first", 0), ("first", 5), ("second", 0), ("second", 5)])
def test_so_is_the_last_segment_where_it_ends_before_one(
    tmp_path: Path, boot: Boot, now: str, more: int, durability: Durability
) -> None:
    """Else another record would get the number of one that a checkpoint has."""
    files = create(tmp_path, durability)
    append(files, 1, 2, 3)
    files.save("saved", image([1, 2, 3])).result()
    append(files, 4)
    files.close()
    session = tmp_path / "sessions" / "a"
    cut_after(1, 2, more)(session)
    before = content(session)
    boot(now)
    with pytest.raises(SessionQuarantined, match="lacks records up to 3"):
        reopened(tmp_path).recover()
    assert content(session) == before


def test_a_checkpoint_after_what_is_torn_is_all_that_counts(tmp_path: Path, boot: Boot) -> None:
    files = create(tmp_path)
    append(files, 1)
    checkpoint(files, 1)
    append(files, 2, 3)
    checkpoint(files, 1, 2, 3)
    append(files, 4)
    files.close()
    boot("second")
    lose_record(2, 1)(tmp_path / "sessions" / "a")
    assert history(reopened(tmp_path).recover()) == [1, 2, 3, 4]
    with pytest.raises(SessionQuarantined):  # since it was flushed
        verify_session(tmp_path, "a", Limits())


def test_a_branch_goes_on_alone_and_its_origin_keeps_what_it_has(tmp_path: Path, boot: Boot) -> None:
    files = create(tmp_path)
    append(files, 1, 2)
    branch = files.fork("b", None)
    append(branch, 3)
    branch.close()
    append(files, 4)
    files.close()
    boot("second")
    for name in ("a", "b"):
        lose_record(3, 1 if name == "a" else 2)(tmp_path / "sessions" / name)
    assert history(reopened(tmp_path, "b").recover()) == [1, 2]
    assert history(reopened(tmp_path, "a").recover()) == [1, 2]


@pytest.mark.parametrize(
    ("tear", "kept"),
    [(lose_record(1, 2), [1]), (cut_after(1, 0), []), (lambda session: os.truncate(session / file_name(1), 0), [])],
)
def test_cutting_a_segment_that_a_branch_shares_leaves_the_other_session_as_it_was(
    tmp_path: Path, boot: Boot, tear: Tear, kept: list[int]
) -> None:
    files = create(tmp_path)
    append(files, 1, 2)
    files.fork("b", None).close()
    append(files, 3)
    files.close()
    boot("second")
    shared = tmp_path / "sessions" / "b" / file_name(1)
    assert shared.stat().st_nlink == 2
    tear(tmp_path / "sessions" / "a")
    torn = shared.read_bytes()
    files = reopened(tmp_path, "a")
    assert history(files.recover()) == kept
    append(files, 4)
    assert (shared.read_bytes(), shared.stat().st_nlink) == (torn, 1)


def test_a_loss_is_told_of_also_where_the_session_cannot_be_made_at_once(
    tmp_path: Path, boot: Boot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OutOfMemory("there is no room", retry_after=1.0)

    lose_record(6, 1)(lived(tmp_path))
    boot("second")
    with monkeypatch.context() as patch:
        patch.setattr("backwire_server.sessions.keeping.kept.recovered", fail)
        with closing(SessionStore(Limits(), Home(), vault(tmp_path))) as store, pytest.raises(OutOfMemory):
            store.get("a").digest(UNBOUNDED)
    with closing(SessionStore(Limits(), Home(), vault(tmp_path))) as store:
        store.get("a").digest(UNBOUNDED)
    [told] = [each.getMessage() for each in caplog.records if "goes on from" in each.getMessage()]
    assert "session a goes on from step (not known yet), record 5 of its journal" in told


def test_what_is_written_after_a_loss_outlives_another_or_is_lost_itself(tmp_path: Path, boot: Boot) -> None:
    """Nothing that was given up comes back behind it."""
    torn = tmp_path / "torn"
    lose_record(1, 2)(lived(torn))
    boot("second")
    (tmp_path / "again").mkdir()
    disk = Disk(tmp_path / "again")
    with disk.recording():
        home = vault(tmp_path / "again")
        os.mkdir(tmp_path / "again" / "sessions" / "a")
        for name, data in content(torn / "sessions" / "a").items():
            copy = os.open(tmp_path / "again" / "sessions" / "a" / name, os.O_CREAT | os.O_WRONLY)
            os.pwritev(copy, [memoryview(data)], 0)
            os.fsync(copy)
            os.close(copy)
        for folder in ("again/sessions/a", "again/sessions", "again"):
            descriptor = os.open(tmp_path / folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        begun = disk.moment
        files = home.open("a")
        assert history(files.recover()) == [1]
        append(files, 8, 9)
        files.close()
    boot("third")
    ways: list[tuple[bool | Callable[[int], bool], float]] = [
        *((True, 0.0), (True, 0.5), (True, 1.0), (False, 0.0), (False, 1.0)),
        *(
            (lambda number: number % 2 == 0, 1.0),
            (lambda number: number % 2 == 1, 1.0),
            (lambda number: number > 2, 1.0),
        ),
    ]
    for moment in range(begun, disk.moment + 1):
        for number, (kept, share) in enumerate(ways):
            left = tmp_path / f"left-{moment}-{number}"
            left.mkdir()
            disk.left(moment, left, names=kept, data=share)
            found = history(reopened(left).recover())
            assert found == [1, 8, 9][: len(found)], (moment, number)
            assert found, (moment, number)


@pytest.mark.parametrize("what", TEARS)
def test_verify_says_where_a_session_will_go_on_and_changes_nothing(tmp_path: Path, boot: Boot, what: str) -> None:
    tear, kept = TEARS[what]
    session = lived(tmp_path)
    tear(session)
    (tmp_path / "scratch").mkdir(exist_ok=True)
    before = content(session)
    boot("second")
    found = verify_session(tmp_path, "a", Limits())
    assert (found.mutations, found.loss and found.loss.record) == (kept, kept)
    assert content(session) == before
    boot("first")
    with pytest.raises(SessionQuarantined):
        verify_session(tmp_path, "a", Limits())
    assert content(session) == before
