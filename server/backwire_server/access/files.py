"""Tells when files have changed, and when others than those who should may read them."""

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

Stamp = tuple[tuple[int, ...] | None, ...]
"""What changes when one of several files does; None stands for a file that is not there."""


def stamp(paths: Sequence[Path]) -> Stamp:
    """Returns what changes when one of the files is written, replaced or removed."""
    return tuple(_stamp(path) for path in paths)


def warn_if_exposed(path: Path, log: logging.Logger) -> None:
    """Logs a warning when users beyond the owner and the group of a secret file may read it."""
    if os.stat(path).st_mode & stat.S_IROTH:
        log.warning("%s can be read by every user of this machine; run: chmod o= %s", path, path)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
