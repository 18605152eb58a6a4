"""Which of the servers that share a data directory are alive, by their signs of life in it."""

import json
import logging
import os
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from backwire_server.sessions.replicas import is_replica
from backwire_server.storage.disk import TEMPORARY

REPLICAS = "replicas"
BEATS = 5
"""How many signs of life a server gives in the time after which it counts as dead."""

_LOG = logging.getLogger("backwire.storage")


@dataclass(frozen=True, slots=True)
class Member:
    """A server as it tells of itself: one of its name, the run of it, where it is called, and its latest sign of life.

    `address` is empty as long as it does not listen.
    """

    replica: str
    incarnation: str
    address: str
    beat: int


class Membership:
    """A server among others on the same directory. A thread gives signs of life until `leave`.

    One counts as dead whose sign has not changed for `lease` seconds, as seen here, or which runs anew: no clocks are
    compared. Nothing that must not go wrong depends on it: it only tells who may be taken over from. May be used by
    several threads at once.

    Attributes:
        replica: The name of this server.
        incarnation: This run of it, which no other has.
    """

    def __init__(self, directory: Path, replica: str, lease: float) -> None:
        """Gives the first sign of life; raises OSError."""
        self.replica = replica
        self.incarnation = secrets.token_hex(6)
        self._directory = directory / REPLICAS
        self._lease = lease
        self._address = ""
        self._beat = 0
        self._seen: dict[str, tuple[Member, float]] = {}
        self._mutex = threading.Lock()
        self._left = threading.Event()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._tell()
        self._look()
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
            return Member(self.replica, self.incarnation, self._address, self._beat)

    @property
    def names(self) -> list[str]:
        """The names of those that live, this one among them."""
        with self._mutex:
            others = [name for name, (_, since) in self._seen.items() if time.monotonic() - since < self._lease]
        return sorted([self.replica, *others])

    def alive(self, replica: str, incarnation: str = "") -> Member | None:
        """Returns a server that lives, in this run of it if one is named; None for others, and for this one.

        Before it says no it looks again, as it may be this server that was slow. Raises OSError.
        """
        found = self._known(replica, incarnation)
        if found is None:
            self._look()
            found = self._known(replica, incarnation)
        return found

    def leave(self) -> None:
        """Ends the thread, and has the others know that this server is gone."""
        self._left.set()
        self._thread.join()
        if self._read(self.replica, mine=True) is not None:
            (self._directory / self.replica).unlink(missing_ok=True)

    def _known(self, replica: str, incarnation: str) -> Member | None:
        with self._mutex:
            member, since = self._seen.get(replica, (None, 0.0))
        if member is None or incarnation not in ("", member.incarnation):
            return None
        return member if time.monotonic() - since < self._lease else None

    def _live(self) -> None:
        while not self._left.wait(self._lease / BEATS):
            try:
                with self._mutex:
                    self._tell()
                self._look()
            except OSError as error:
                _LOG.warning("no sign of life could be given in %s: %s", self._directory, error)

    def _tell(self) -> None:
        self._beat += 1
        member = {"incarnation": self.incarnation, "address": self._address, "beat": self._beat}
        temporary = self._directory / f"{self.replica}{TEMPORARY}"
        temporary.write_bytes(json.dumps(member).encode())
        temporary.rename(self._directory / self.replica)

    def _look(self) -> None:
        """Notes which signs have changed, and forgets who left."""
        now = time.monotonic()
        found = {name: member for name in os.listdir(self._directory) if (member := self._read(name)) is not None}
        with self._mutex:
            before = self._seen
            self._seen = {
                name: before[name] if name in before and before[name][0] == member else (member, now)
                for name, member in found.items()
            }

    def _read(self, name: str, *, mine: bool = False) -> Member | None:
        """Returns what a server tells; None for none, and for this one as opposed to others."""
        if not is_replica(name):
            return None
        try:
            told = json.loads((self._directory / name).read_bytes())
            member = Member(name, told["incarnation"], told["address"], told["beat"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return member if (member.incarnation == self.incarnation) is mine else None
