"""Other bytes than were written are damage under any boot: what a loss of power leaves is missing, or has zeros."""

from pathlib import Path

import pytest
from tests.storage.journal.power import Boot
from tests.storage.journal.torn import change, content, lived
from tests.storage.toy import append, create, reopened, vault

from backwire_server.sessions.errors import SessionQuarantined
from backwire_server.storage.journal.segment import file_name


@pytest.mark.parametrize(("first", "place"), [(1, 3), (1, 20), (1, -20), (4, -3), (6, -60)])
def test_a_session_whose_journal_has_other_bytes_is_damaged(tmp_path: Path, boot: Boot, first: int, place: int) -> None:
    session = lived(tmp_path)
    change(session / file_name(first), place)
    before = content(session)
    boot("second")
    with pytest.raises(SessionQuarantined):
        reopened(tmp_path).recover()
    assert content(session) == before


@pytest.mark.parametrize("name", ["manifest.json", file_name(1)])
def test_a_new_session_whose_files_have_other_bytes_does_not_go(tmp_path: Path, boot: Boot, name: str) -> None:
    files = create(tmp_path)
    append(files, 1)
    files.fork("b", None).close()
    files.close()
    paths = [tmp_path / "sessions" / session / name for session in ("a", "b")]
    for path in {path.stat().st_ino: path for path in paths}.values():  # they share a segment
        change(path, -20)
    boot("second")
    home = vault(tmp_path)
    assert {entry.session_id for entry in home.entries()} == {"a", "b"}
    for session in ("a", "b"):
        with pytest.raises(SessionQuarantined):
            home.open(session).recover()
