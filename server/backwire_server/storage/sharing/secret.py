"""A secret that servers have in common which share a directory."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from backwire_server.config_values import ConfigError
from backwire_server.storage.disk import sync_directory, sync_file

SECRET = "SECRET"
BYTES = 32


def common_secret(directory: Path) -> bytes:
    """Returns the secret of a directory, which the first that asks makes.

    Raises OSError, and ConfigError for one that is not whole, which others might guess.
    """
    path = directory / SECRET
    if not path.exists():
        draft = directory / f"{SECRET}-{secrets.token_hex(8)}"
        try:
            draft.touch(mode=0o600)
            draft.write_bytes(secrets.token_bytes(BYTES))
            sync_file(draft)
            with suppress(FileExistsError):  # another was faster
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(directory)
    secret = path.read_bytes()
    if len(secret) != BYTES:
        raise ConfigError(
            f"{path} has {len(secret):,} bytes and not {BYTES}; end all servers of the directory, remove the file, and "
            "start them again: a new one is made"
        )
    return secret
