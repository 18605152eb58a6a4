"""A shared directory that does not tell for a moment whose a session is costs the calls of that moment, no more."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.storage.sharing.servers import Start, gone, put, value

from backwire_server.sessions.errors import StorageFailed


def failing(call: Callable[..., Any], fails: Callable[[Any], bool]) -> Callable[..., Any]:
    """A system call that the disk does not answer for paths, or descriptors, of which this is true."""

    def called(subject: Any, *args: Any, **kwargs: Any) -> Any:
        if fails(subject):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call(subject, *args, **kwargs)

    return called


@pytest.mark.parametrize("written", [True, False])
def test_a_call_fails_that_cannot_see_whose_its_session_is_and_those_after_it_are_done(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    session = (one := start("one")).store.get(one.create())
    put(session, 1)
    seen: list[Path] = []

    def after_it_began(path: Any) -> bool:
        if isinstance(path, Path) and path.parent.name == session.session_id:
            seen.append(path)
        return len(seen) > 1 and path is seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", failing(os.stat, after_it_began))
        if not written:
            patch.setattr(os, "pwritev", failing(os.pwritev, lambda _: True))
        with pytest.raises(StorageFailed):
            put(session, 2)
    assert len(seen) > 1
    assert session._turn.try_acquire(), "another call may have its turn"
    session._turn.release()
    assert value(session) == (2 if written else 1), "what the journal has, whether or not that was acknowledged"
    put(session, 3)
    gone(tmp_path, "one")
    assert value(start("other").store.get(session.session_id)) == 3


def test_a_session_that_cannot_be_looked_for_is_told_to_be_there(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id, other = start("one").create(), start("other")
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", failing(os.listdir, lambda path: Path(path).name == session_id))
        with pytest.raises(StorageFailed, match="could not be looked at"):
            other.vault.look(session_id, lambda files: files.entry)
        assert [entry.session_id for entry in other.vault.entries()] == [session_id]
    assert other.vault.look(session_id, lambda files: files.entry.session_id) == session_id
