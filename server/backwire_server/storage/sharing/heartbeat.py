"""The signs of life of one server among those that share a data directory."""

import errno
import json
import logging
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path

from backwire_server.storage.disk import TEMPORARY
from backwire_server.storage.life import Life, has_ended
from backwire_server.storage.seldom import Seldom
from backwire_server.storage.sharing.signs import Member, read_sign

BEATS = 5
"""How many signs of life a server gives in the time after which it counts as dead."""

_LOG = logging.getLogger("backwire.storage")


class Heartbeat:
    """A server's own sign of life, in a file under its name, which a thread gives again until `stop`.

    May be used by several threads at once.

    Attributes:
        replica: The name of this server.
        incarnation: This run of it, which no other has.
    """

    def __init__(self, directory: Path, replica: str, lease: float) -> None:
        """Gives the first sign of life; raises OSError."""
        self.replica = replica
        self.incarnation = secrets.token_hex(6)
        self._directory = directory
        self._lease = lease
        self._address = ""
        self._count = 0
        self._told = 0.0
        self._fails = False
        self._namesakes = Seldom(_LOG)
        self._mutex = threading.Lock()
        self._stopping = threading.Event()
        directory.mkdir(mode=0o700, exist_ok=True)
        self._life = Life(directory, replica, self.incarnation)
        self._tell()
        self._thread = threading.Thread(target=self._live, name="backwire-membership", daemon=True)
        self._thread.start()

    def announce(self, address: str) -> None:
        """Tells the others where this server is called."""
        with self._mutex:
            self._address = address
            self._tell()

    @property
    def me(self) -> Member:
        """This server, as it tells of itself."""
        with self._mutex:
            return Member(
                self.replica, self.incarnation, self._address, self._count, self._life.machine, lease=self._lease
            )

    @property
    def last(self) -> tuple[float, int]:
        """When the last sign was given: by the monotonic clock, and in nanoseconds as the file system says.

        Raises FileNotFoundError where there is none any more.
        """
        with self._mutex:
            return self._told, os.stat(self._directory / self.replica).st_mtime_ns

    @property
    def silence(self) -> float:
        """For how many seconds no sign could be given, 0 as long as that is less than the lease; waits for nothing."""
        silent = time.monotonic() - self._told if self._fails else 0.0
        return silent if silent >= self._lease else 0.0

    def stop(self) -> None:
        """Ends the thread, and has the others know that this server is gone."""
        self._stopping.set()
        self._thread.join()
        if self._read(mine=True) is not None:
            (self._directory / self.replica).unlink(missing_ok=True)
        self._life.end()

    def _live(self) -> None:
        silent = False
        while not self._stopping.wait(self._lease / BEATS):
            try:
                self._fails = True  # until it is given, or for good where the directory hangs
                with self._mutex:
                    self._beat_somehow()
                silent = self._fails = False
            except OSError as error:
                if not silent:  # that is told once, not with each sign
                    _LOG.warning(
                        "no sign of life can be given in %s; until one can, others take sessions over: %s",
                        self._directory,
                        error,
                    )
                silent = True

    def _beat_somehow(self) -> None:
        """Gives a sign, on a full disk, too, where a file has no room and the times of one can be set."""
        self._look_for_namesake()
        try:
            self._tell()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or self._read(mine=True) is None:
                raise
            os.utime(self._directory / self.replica)
            self._told = time.monotonic()

    def _look_for_namesake(self) -> None:
        """Warns of another server that gives signs under this name: of two that begin at once, none sees the other."""
        other = None
        with suppress(OSError):  # the sign itself may be given all the same
            other = self._read(mine=False)
        if other is not None and not has_ended(self._directory, self.replica, other.incarnation, other.machine):
            self._namesakes.warn(
                "another server with --replica %s gives signs of life in %s, from %s, so that others take each of the "
                "two for dead again and again; end one of them, and give it another name",
                self.replica,
                self._directory,
                other.address or "an address that it has not told yet",
            )

    def _tell(self) -> None:
        self._count += 1
        place = {"address": self._address, "machine": self._life.machine, "lease": self._lease}
        member = {"incarnation": self.incarnation, "beat": self._count, **place}
        temporary = self._directory / f"{self.replica}{TEMPORARY}"
        temporary.write_bytes(json.dumps(member).encode())
        temporary.rename(self._directory / self.replica)
        self._told = time.monotonic()

    def _read(self, *, mine: bool) -> Member | None:
        """Returns the sign under this server's name, if it is this server's own, or if it is another's."""
        found = read_sign(self._directory, self.replica, self._lease)
        return found if found is not None and (found.incarnation == self.incarnation) is mine else None
