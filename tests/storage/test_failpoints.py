"""Failpoints: at the time that was said, at the place that was said, and never without being armed."""

import errno
from collections.abc import Callable

import pytest

from backwire_server.storage import failpoints


def test_unarmed_they_do_nothing_and_leave_writes_whole() -> None:
    for name in failpoints.NAMES:
        failpoints.hit(name)
    assert list(failpoints.halves("journal.append.half", [b"ab", b"c"])) == [[b"ab", b"c"]]


def test_an_error_is_raised_at_the_time_that_was_said_and_only_then(arm: Callable[[str], object]) -> None:
    arm("journal.append=ENOSPC@2, journal.flush=EIO")
    failpoints.hit("journal.append")
    with pytest.raises(OSError, match="No space left") as found:
        failpoints.hit("journal.append")
    assert found.value.errno == errno.ENOSPC
    failpoints.hit("journal.append")
    failpoints.hit("segment.created")
    with pytest.raises(OSError, match="Input/output"):
        failpoints.hit("journal.flush")


def test_a_write_is_divided_where_it_is_to_be_interrupted(arm: Callable[[str], object]) -> None:
    arm("journal.append.half=EIO@2")
    assert list(failpoints.halves("journal.append.half", [b"abc", b"de"])) == [[b"ab"], [b"cde"]]
    halves = iter(failpoints.halves("journal.append.half", [b"abc", b"de"]))
    assert next(halves) == [b"ab"]
    with pytest.raises(OSError, match="Input/output"):
        next(halves)
    assert list(failpoints.halves("manifest.half", [b"abc"])) == [[b"abc"]]


@pytest.mark.parametrize(
    "text", ["nowhere=kill", "journal.append", "journal.append=kill@0", "journal.append=ENOTHING", "journal.append=die"]
)
def test_what_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no failpoint"):
        failpoints.arm(text)
