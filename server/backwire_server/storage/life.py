"""Tells at once that a server of this machine has ended: the kernel lets go of the lock that it had on a file."""

import fcntl
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

SUFFIX = ".lock"

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@cache
def this_machine() -> str:
    """Returns what no other running kernel calls itself; empty where it does not tell."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


class Life:
    """That one run of a server goes on, for the others on its machine to see.

    Attributes:
        machine: Where it can be seen; empty where the file system has no locks, or the machine no name.
    """

    def __init__(self, directory: Path, replica: str, incarnation: str) -> None:
        """Begins, in a file of its own, and removes those of runs that ended; raises OSError."""
        for left in directory.glob(f"{replica}.*{SUFFIX}"):
            if _is_free(left):
                left.unlink(missing_ok=True)
        self.machine = this_machine()
        self._path = _path(directory, replica, incarnation)
        self._file = open(self._path, "wb")  # noqa: SIM115 - closed by `end`
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.machine = ""

    def end(self) -> None:
        """Ends before the process does. Ending again does nothing."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._file.close()


def has_ended(directory: Path, replica: str, incarnation: str, machine: str) -> bool:
    """Tells whether a run of a server is known to have ended; never of one that is on another machine."""
    return bool(machine) and machine == this_machine() and _is_free(_path(directory, replica, incarnation))


def _path(directory: Path, replica: str, incarnation: str) -> Path:
    return directory / f"{replica}.{incarnation}{SUFFIX}"


def _is_free(path: Path) -> bool:
    """Tells whether nobody has a file locked; a file that is not there tells nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
