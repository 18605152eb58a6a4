"""Servers that share a directory have a secret in common, which nobody can guess."""

from pathlib import Path

import pytest

from backwire_server.config_values import ConfigError
from backwire_server.storage.sharing.secret import BYTES, SECRET, common_secret


def test_all_servers_of_a_directory_read_the_secret_that_one_has_made(tmp_path: Path) -> None:
    secret = common_secret(tmp_path)
    assert common_secret(tmp_path) == secret
    assert len(secret) == BYTES
    assert (tmp_path / SECRET).stat().st_mode & 0o077 == 0
    (tmp_path / "other").mkdir()
    assert common_secret(tmp_path / "other") != secret


@pytest.mark.parametrize("left", [b"", bytes(BYTES - 1)])
def test_a_secret_that_is_not_whole_is_none(tmp_path: Path, left: bytes) -> None:
    common_secret(tmp_path)
    (tmp_path / SECRET).write_bytes(left)
    with pytest.raises(ConfigError, match="remove the file"):
        common_secret(tmp_path)
    (tmp_path / SECRET).unlink()
    assert len(common_secret(tmp_path)) == BYTES
