"""Checkpoints that are saved by name while a session goes on: what comes after them, and what is left of a failure."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.storage.toy import KEY, append, checkpoint, history, image, mutation, names, reopened, spec, vault

from backwire_server.sessions.errors import CheckpointNotFound, DiskQuotaExceeded, StorageFailed
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.state import Image
from backwire_server.storage.disk import size_of
from backwire_server.storage.journal.segment import file_name
from backwire_server.storage.session_files import FileSession
from backwire_server.storage.vault import FileVault

Arm = Callable[[str], object]
Hold = Callable[[FileVault], threading.Event]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Has the thread that writes for a vault wait for an event, which is set at the end of the test at the latest."""
    held: list[threading.Event] = []

    def hold(home: FileVault) -> threading.Event:
        held.append(threading.Event())
        home._place.checkpointer.submit(image([]), lambda _, go=held[-1]: go.wait(30))  # type: ignore[misc]
        return held[-1]

    yield hold
    for event in held:
        event.set()


def begun(home: FileVault, *history: int, durability: Durability = Durability.JOURNAL) -> FileSession:
    made = home.create("a", spec(), durability, KEY)
    append(made, *history)
    return made


def saved_names(directory: Path) -> list[str]:
    return [name for name in names(directory / "sessions" / "a") if name.startswith("saved-")]


def test_what_is_saved_is_the_moment_of_the_call_though_it_is_written_later(tmp_path: Path, hold: Hold) -> None:
    home = vault(tmp_path)
    made = begun(home, 1)
    go = hold(home)
    closed = threading.Event()
    given = image([1], [closed.set])
    saving = made.save("best", given, RequestKey("save", b"\x01"))
    assert closed.wait(30), "the image is let go of before anything is written"
    given.state.parameters["w"][0] = 77
    append(made, 2)
    assert (saving.done(), made.checkpoints(), made.requests()) == (False, [], [])
    go.set()
    answer = saving.result(30)
    assert (made.checkpoints(), [each.answer for each in made.requests()]) == ([answer], [answer])
    assert list(made.load("best").state.parameters["w"]) == [1]
    assert reopened(tmp_path).recover().digests == {1: answer.digest}


AFTERWARDS: dict[str, tuple[Callable[[FileSession], object], list[str]]] = {
    "load": (lambda made: made.load("best"), ["saved-best.safetensors"]),
    "delete": (lambda made: made.delete_checkpoint("best"), []),
    "restart": (lambda made: made.restart(image([9])), ["saved-best.safetensors"]),
    "rewind": (lambda made: made.rewind(1), ["saved-best.safetensors"]),
    "checkpoint": (lambda made: checkpoint(made, 1), ["saved-best.safetensors"]),
    "close": (lambda made: made.close(), ["saved-best.safetensors"]),
}


@pytest.mark.parametrize("what", AFTERWARDS)
def test_what_is_done_after_a_save_comes_after_it(tmp_path: Path, hold: Hold, what: str) -> None:
    home = vault(tmp_path)
    made = begun(home, 1)
    go = hold(home)
    saving = made.save("best", image([1]))
    act, left = AFTERWARDS[what]
    later = threading.Thread(target=act, args=(made,))
    later.start()
    later.join(0.05)
    assert later.is_alive()
    go.set()
    later.join(30)
    assert saving.done()
    assert saved_names(tmp_path) == left
    assert [f"saved-{each.name}.safetensors" for each in made.checkpoints() if each.name] == left


def test_saves_of_the_same_name_replace_one_another_in_their_order(tmp_path: Path, hold: Hold) -> None:
    home = vault(tmp_path)
    made = begun(home, 1)
    go = hold(home)
    saves = [made.save("best", image([1] * length)) for length in (1, 2, 3)]
    go.set()
    assert [each.result(30).step for each in saves] == [1, 2, 3]
    assert made.load("best").state.step == 3
    assert len(saved_names(tmp_path)) == 1


def test_a_checkpoint_is_due_and_begun_while_another_is_being_saved(tmp_path: Path, hold: Hold) -> None:
    home = vault(tmp_path, checkpoint_bytes=1)
    made = begun(home, 1)
    go = hold(home)
    saving = made.save("best", image([1]))
    assert made.due
    made.checkpoint(image([1]), background=True)
    assert not made.due
    append(made, 2)
    go.set()
    made.close()
    assert saving.result().step == 1
    recovery = reopened(tmp_path).recover()
    assert (recovery.count, history(recovery)) == (1, [1, 2])


@pytest.mark.parametrize("place", ["checkpoint.half", "checkpoint.renamed", "manifest.half", "manifest.synced"])
def test_a_save_that_cannot_be_written_tells_and_leaves_nothing(tmp_path: Path, arm: Arm, place: str) -> None:
    home = vault(tmp_path, max_disk_bytes=1 << 20)
    made = begun(home, 1)
    closed: list[bool] = []
    arm(f"{place}=ENOSPC")
    saving = made.save("best", image([1], [lambda: closed.append(True)]), RequestKey("save", b"\x01"))
    append(made, 2)
    with pytest.raises(StorageFailed, match="make room"):
        saving.result(30)
    assert closed == [True]
    assert (made.broken, made.checkpoints(), made.requests(), saved_names(tmp_path)) == (False, [], [], [])
    assert home._usage.total == size_of(tmp_path / "sessions" / "a")
    assert made.save("best", image([1, 2])).result(30).step == 2
    assert history(reopened(tmp_path).recover()) == [1, 2]


def test_a_save_beyond_the_quota_tells_and_the_session_goes_on(tmp_path: Path) -> None:
    home = vault(tmp_path, max_disk_bytes=6000)
    made = begun(home, 1)
    saving = made.save("best", image(range(1000)))
    with pytest.raises(DiskQuotaExceeded):
        saving.result(30)
    append(made, 2)
    assert home._usage.total == size_of(tmp_path / "sessions" / "a")


def test_an_image_that_cannot_be_copied_is_closed_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = begun(vault(tmp_path), 1)
    closed: list[bool] = []

    def fail(_: Image) -> Image:
        raise MemoryError("no room")

    monkeypatch.setattr(Image, "detached", fail)
    saving = made.save("best", image([1], [lambda: closed.append(True)]))
    with pytest.raises(MemoryError):
        saving.result(30)
    assert (closed, saved_names(tmp_path)) == ([True], [])


def test_an_image_that_nobody_writes_any_more_is_closed(tmp_path: Path) -> None:
    home = vault(tmp_path)
    made = begun(home, 1)
    home.close()
    closed: list[bool] = []
    with pytest.raises(RuntimeError):
        made.save("best", image([1], [lambda: closed.append(True)]))
    assert closed == [True]


def test_files_that_are_broken_save_nothing(tmp_path: Path, arm: Arm) -> None:
    made = begun(vault(tmp_path), 1)
    arm("manifest.renamed=EIO")
    with pytest.raises(StorageFailed, match="not known"):
        made.save("best", image([1])).result(30)
    assert made.broken
    closed: list[bool] = []
    with pytest.raises(StorageFailed):
        made.save("best", image([1], [lambda: closed.append(True)]))
    assert closed == [True]
    made.close()
    assert list(reopened(tmp_path).load("best").state.parameters["w"]) == [1], "its name was on the disk"


def test_the_journal_is_on_the_disk_before_a_saved_checkpoint_counts_at_any_durability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the journal would go on before the checkpoint otherwise, and come to its number anew."""
    made = begun(vault(tmp_path), 1)
    made.fork("b", None)
    append(made, 2)
    told: list[str] = []
    flush, rename = os.fdatasync, os.rename

    def flushing(descriptor: int) -> None:
        told.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        flush(descriptor)

    def renaming(source: Path, target: Path) -> None:
        told.append(target.name)
        rename(source, target)

    monkeypatch.setattr(os, "fdatasync", flushing)
    monkeypatch.setattr(os, "rename", renaming)
    made.save("best", image([1, 2])).result(30)
    assert told == [
        file_name(1),
        file_name(2),
        "session.binpb",
        "manifest.json",
        "saved-best.safetensors",
        "manifest.json",
    ]


def test_a_save_whose_journal_cannot_be_flushed_tells_and_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begun(vault(tmp_path), 1)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageFailed, match="journal could not be flushed"):
            made.save("best", image([1])).result(30)
    append(made, 2)
    assert (made.broken, saved_names(tmp_path)) == (False, [])
    assert history(reopened(tmp_path).recover()) == [1, 2]


def test_a_flush_that_fails_before_a_save_breaks_the_files_of_a_session_that_is_flushed(
    tmp_path: Path, arm: Callable[[str], dict[str, int]]
) -> None:
    made = vault(tmp_path).create("a", spec(), Durability.FSYNC, KEY)
    made.append(mutation(1))
    passed = arm("journal.flushed=EIO")
    with pytest.raises(StorageFailed, match="could not be flushed"):
        made.save("best", image([1])).result(30)
    assert passed["journal.flushed"] == 1
    assert made.broken
    with pytest.raises(CheckpointNotFound):
        reopened(tmp_path).load("best")
