"""A server gives signs of life, and tells when it can give none and when another gives them under its name."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backwire_server.storage.sharing.heartbeat import Heartbeat

Begin = Callable[[str], Heartbeat]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Has servers begin to give signs, with a lease that lets their threads sleep until the end."""
    begun: list[Heartbeat] = []

    def begin(replica: str) -> Heartbeat:
        begun.append(Heartbeat(tmp_path, replica, 1_000.0))
        return begun[-1]

    yield begin
    for each in begun:
        each.stop()


def test_one_that_can_give_no_sign_tells_so_once_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = iter([errno.EROFS, errno.EROFS, None, errno.EROFS])
    ended = threading.Event()

    def beat(_: Heartbeat) -> None:
        code = next(given, 0)
        if code == 0:
            ended.set()
        elif code is not None:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Heartbeat, "_beat_somehow", beat)
    one = Heartbeat(tmp_path, "one", 0.05)
    assert ended.wait(30)
    one.stop()
    assert [each.levelname for each in caplog.records] == ["WARNING"] * 2
    assert "others take sessions over" in caplog.text


def test_two_of_one_name_that_began_at_once_are_told_in_the_logs_of_both(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    one = begin("one")
    one._beat_somehow()
    assert caplog.text == ""
    again = begin("one")
    one.announce("one.example:1")
    for each in (again, one):
        each._beat_somehow()
    first, second = (record.getMessage() for record in caplog.records)
    assert "--replica one gives signs" in first
    assert "from one.example:1" in first
    assert "an address that it has not told yet" in second
    assert "give it another name" in second


def test_a_run_before_that_has_ended_is_no_other_of_its_name(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    one, again = begin("one"), begin("one")
    again._life._file.close()  # as the kernel does when a process ends
    one._beat_somehow()
    assert caplog.text == ""
