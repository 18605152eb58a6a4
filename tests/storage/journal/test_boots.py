"""A journal whose last segment was begun under another boot, or under an unknown one, goes on in another segment."""

import os
from pathlib import Path

import pytest
from tests.storage.journal.power import Boot
from tests.storage.toy import append, create, history, reopened, vault

from backwire_server.storage.disk import size_of
from backwire_server.storage.journal.segment import file_name


@pytest.mark.parametrize(("then", "now"), [("", "first"), ("first", ""), ("first", "second")])
def test_what_a_kill_tore_of_it_is_cut_before_another_segment_is_begun(
    tmp_path: Path, boot: Boot, then: str, now: str
) -> None:
    boot(then)
    files = create(tmp_path)
    append(files, 1, 2)
    files.close()
    session = tmp_path / "sessions" / "a"
    os.truncate(session / file_name(1), (session / file_name(1)).stat().st_size - 1)
    boot(now)
    home = vault(tmp_path, max_disk_bytes=1 << 20)
    files = home.open("a")
    assert history(files.recover()) == [1]
    append(files, 3)
    files.close()
    assert home.usage.total == size_of(session)
    assert history(reopened(tmp_path).recover()) == [1, 3]
