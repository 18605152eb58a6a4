"""When a checkpoint is due: as the journal grows, and after one that could not be written."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage.toy import (
    KEY,
    append,
    checkpoint,
    create,
    history,
    image,
    mutation,
    reopened,
    spec,
    vault,
)

from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.checkpoints import pacing

Arm = Callable[[str], object]


def test_a_checkpoint_is_due_when_the_journal_has_grown_and_none_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "DUE_RECORDS", 3)
    home = vault(tmp_path)
    made = home.create("a", spec(), Durability.JOURNAL, KEY)
    append(made, 1, 2)
    assert not made.due
    append(made, 3)
    assert made.due
    go = threading.Event()
    home._place.checkpointer.submit(image([], [lambda: go.wait(30) and None]), lambda _: None)
    made.checkpoint(image([1, 2, 3]), background=True)
    append(made, 4, 5, 6)
    assert not made.due, "one is waiting for its turn"
    go.set()
    made.close()
    assert made.due


def test_a_checkpoint_is_due_when_the_journal_has_as_many_bytes_as_it_may_and_as_the_last_one(tmp_path: Path) -> None:
    made = vault(tmp_path, checkpoint_bytes=3000).create("a", spec(), Durability.JOURNAL, KEY)
    append(made, 1, 2)
    assert not made.due
    append(made, *range(100))
    assert made.due
    checkpoint(made, *range(1000))
    append(made, *range(90))
    assert not made.due, "the checkpoint has 8,000 bytes"
    append(made, *range(200))
    assert made.due


def test_a_failed_checkpoint_in_the_background_is_logged_and_the_session_goes_on(
    tmp_path: Path, arm: Arm, caplog: pytest.LogCaptureFixture
) -> None:
    made = create(tmp_path)
    append(made, 1)
    arm("checkpoint.written=ENOSPC")
    made.checkpoint(image([1]), background=True)
    append(made, 2)
    made.close()
    assert "could not be written in the background" in caplog.text
    append(made, 3)
    recovery = reopened(tmp_path).recover()
    assert (recovery.image, history(recovery)) == (None, [1, 2, 3])
    assert not made.broken


def test_a_checkpoint_that_cannot_be_begun_in_the_background_is_logged_and_not_tried_at_every_call(
    tmp_path: Path, arm: Arm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "DUE_RECORDS", 2)
    made = create(tmp_path)
    append(made, 1, 2)
    closed: list[bool] = []
    arm("segment.created=ENOSPC")
    assert made.due
    made.checkpoint(image([1, 2], [lambda: closed.append(True)]), background=True)
    assert closed == [True]
    assert "could be begun" in caplog.text
    append(made, 3)
    assert not made.due
    assert history(reopened(tmp_path).recover()) == [1, 2, 3]


def test_a_checkpoint_that_failed_is_due_again_when_the_journal_has_grown_as_much_again(
    tmp_path: Path, arm: Arm
) -> None:
    made = vault(tmp_path, checkpoint_bytes=1000).create("a", spec(), Durability.JOURNAL, KEY)
    append(made, *range(100))
    assert made.due
    arm("checkpoint.written=ENOSPC,segment.created=ENOSPC")
    made.checkpoint(image(range(100)), background=True)
    append(made, 100)
    assert not made.due, "a segment could not be begun"
    append(made, *range(101, 200))
    assert made.due
    made.checkpoint(image(range(200)), background=True)
    append(made, 200)
    made._checkpointing.drain()
    assert not made.due, "the checkpoint could not be written"
    append(made, *range(201, 300))
    assert made.due
    assert history(reopened(tmp_path).recover()) == [*range(300)]


def test_whether_a_checkpoint_is_due_is_known_without_a_look_at_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault(tmp_path).create("a", spec(), Durability.JOURNAL, KEY).append(mutation(1))
    made = vault(tmp_path, checkpoint_bytes=3000).open("a")
    append(made, *range(10))
    due = [made.due]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was looked at")

    for name in ("stat", "listdir", "scandir", "fstat"):
        monkeypatch.setattr(os, name, refuse)
    for value in range(100):
        append(made, value)
        due.append(made.due)
    monkeypatch.undo()
    assert (due[0], due[-1], due) == (False, True, sorted(due))


def test_a_checkpoint_is_due_when_the_journal_that_an_earlier_process_wrote_has_grown_far(tmp_path: Path) -> None:
    append(create(tmp_path), *range(100))
    made = vault(tmp_path, checkpoint_bytes=3000).open("a")
    append(made, 100)
    assert made.due
