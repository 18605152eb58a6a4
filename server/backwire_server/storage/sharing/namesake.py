"""Keeps the name of a server to one, among those that share a data directory."""

import os
import tempfile
import time
from pathlib import Path

from backwire_server.storage.life import has_ended
from backwire_server.storage.lock import PATIENCE_SECONDS, POLL_SECONDS, REPLICAS, DirectoryInUse
from backwire_server.storage.sharing.signs import SECOND, Member, read_sign


def outlast(root: Path, replica: str, lease: float) -> None:
    """Waits until no server of this name lives on the directory, such as one that is about to end.

    On this machine that is known at once, else when it has given no sign of life for its lease, which is `lease`
    seconds if it tells none. Raises DirectoryInUse where it gives signs for PATIENCE_SECONDS besides, and OSError.
    """
    directory = root / REPLICAS
    last = read_sign(directory, replica, lease)
    if last is None:
        return
    began = time.monotonic()
    since = began - _age(directory, last)
    while last is not None and time.monotonic() - since < last.lease:
        if has_ended(directory, replica, last.incarnation, last.machine):
            return
        if time.monotonic() - began > last.lease + PATIENCE_SECONDS:
            raise DirectoryInUse(
                f"another server with --replica {replica} uses the data directory {root}{_place(last)}; end that one, "
                "or give this one another name"
            )
        time.sleep(min(POLL_SECONDS, last.lease / 10))
        found = read_sign(directory, replica, lease)
        if found != last:
            last, since = found, time.monotonic()


def _age(directory: Path, sign: Member) -> float:
    """Returns how many seconds old a sign is by the times of files; 0 where they are of whole seconds."""
    with tempfile.TemporaryFile(dir=directory) as file:
        now = os.fstat(file.fileno()).st_mtime_ns
    coarse = now % SECOND == 0 and sign.touched % SECOND == 0
    return 0.0 if coarse else max(0.0, (now - sign.touched) / SECOND)


def _place(sign: Member) -> str:
    return f", at {sign.address}" if sign.address else ""
