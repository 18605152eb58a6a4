"""Which of the servers that share a data directory are alive, by their signs of life in it."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backwire_server.sessions.replicas import is_replica
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.storage.life import has_ended
from backwire_server.storage.lock import REPLICAS
from backwire_server.storage.sharing.heartbeat import BEATS, Heartbeat
from backwire_server.storage.sharing.signs import SECOND, Member, read_sign

LATE_BEATS = 1.5
"""After how many times the time between two signs the next one is late."""

LOOKS = 25
"""How often in the time after which it counts as dead a server is looked at that is late."""

CHECK_SECONDS = 0.05
"""How late a call that waits for that may notice that its caller is gone, or its deadline has passed."""

LONGEST_WAIT = 1.0
"""From how many seconds on before it counts as dead one that is late is waited for."""

MOST_WAITING = 16
"""How many calls may wait for that where there are places among the calls in progress for more than twice as many."""


STALLED_SECONDS = 30.0
"""For how long one that is taken for dead, and not known to have ended, may yet give signs again, as after a stall."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A server as it was last seen, by this one's clock.

    Its sign is the same `since` then, as the file system says; it was `first` seen and last `looked` at.
    """

    member: Member
    since: float
    first: float
    looked: float


class Membership:
    """A server among others on the same directory, to whom it gives signs of life until `leave`.

    One counts as dead whose sign has not changed for its own `lease` of seconds, or which runs anew; on the same
    machine, as soon as its process has ended. Clocks of servers are not compared: how old a sign is when it is first
    looked at, the file system tells by the times of two files, and one that was not there at the last look was given
    after that; a server of which such times are wrong by more than its lease is not judged by them any more. Nobody
    is taken over from by such times alone, but after the next sign would have come. Who is
    not asked for is not looked at, so that what a server reads does not grow with the others. Nothing that must not go
    wrong depends on it: it only tells who may be taken over from. May be used by several threads at once.

    Attributes:
        replica: The name of this server.
        incarnation: This run of it, which no other has.
    """

    def __init__(self, directory: Path, replica: str, lease: float, most_waiting: int = MOST_WAITING) -> None:
        """Gives the first sign of life; raises OSError. `outlasted` waits in so many threads, or MOST_WAITING."""
        self._directory = directory / REPLICAS
        self._lease = lease
        self._seen: dict[str, _Seen] = {}
        self._unlike: set[str] = set()  # whose signs the file system has at other times than when they were given
        self._left = threading.Event()
        self._waiting = threading.Semaphore(min(most_waiting, MOST_WAITING))
        self._heartbeat = Heartbeat(self._directory, replica, lease)
        self.replica, self.incarnation = replica, self._heartbeat.incarnation

    def announce(self, address: str) -> None:
        """Tells the others where this server is called."""
        self._heartbeat.announce(address)

    @property
    def me(self) -> Member:
        """This server, as it tells of itself."""
        return self._heartbeat.me

    @property
    def silence(self) -> float:
        """As of the heartbeat."""
        return self._heartbeat.silence

    @property
    def names(self) -> list[str]:
        """The names of those that live, this one among them; raises OSError."""
        others = [name for name in os.listdir(self._directory) if is_replica(name) and self.alive(name)]
        return sorted({self.replica, *others})

    def alive(self, replica: str, incarnation: str = "") -> Member | None:
        """Returns a server that lives, in this run of it if one is named; None for others, and for this one.

        It is looked at no more often than it gives signs of life, but once more before it is said to be dead. Raises
        OSError.
        """
        seen = self._living(replica, incarnation, self._lease / BEATS)
        return seen.member if seen else None

    def stalls(self, replica: str) -> bool:
        """Tells whether a server counts as dead that may only have stalled, and live on soon; raises OSError."""
        if self._living(replica, "", self._lease / BEATS) is not None or (seen := self._look(replica, 0.0)) is None:
            return False
        dead = time.monotonic() - seen.since - seen.member.lease
        return dead < STALLED_SECONDS and not self._has_ended(seen.member)

    def address(self, replica: str) -> str:
        """Returns where another server is called, empty for one that is dead or could not be looked at."""
        with suppress(OSError):
            if (found := self.alive(replica)) is not None:
                return found.address
        return ""

    def lives_at(self, address: str) -> bool:
        """As `alive`, of any server that has told an address; all are looked at before none is said to live there.

        One that runs anew may be there, in place of one that was seen.
        """
        if self._one_lives_at(address):
            return True
        _ = self.names
        return self._one_lives_at(address)

    def outlasted(self, replica: str, incarnation: str = "", check: Check = unchecked) -> bool:
        """Tells whether a server is dead; of one whose next sign is late, when that is given or it is dead.

        After a sign that is seen for the first time another may come yet, however old the file system says it is.
        It waits so for LONGEST_WAIT seconds at most, in some threads at a time, and calls `check` meanwhile, which may
        raise. Raises OSError.
        """
        seen = self._expected(replica, incarnation, self._lease / BEATS)
        if seen is None or not self._is_late(seen) or not self._waiting.acquire(blocking=False):
            return seen is None
        try:
            pause = min(self._lease / LOOKS, CHECK_SECONDS)
            while seen is not None and self._is_late(seen) and not self._left.wait(pause):
                check()
                seen = self._expected(replica, incarnation, self._lease / LOOKS)
            return seen is None
        finally:
            self._waiting.release()

    def leave(self) -> None:
        """Has the others know that this server is gone."""
        self._left.set()
        self._heartbeat.stop()

    def _living(self, replica: str, incarnation: str, fresh: float) -> "_Seen | None":
        """As `alive`; what was seen in the last `fresh` seconds holds still."""
        for age in (fresh, 0.0):
            seen = self._look(replica, age)
            living = seen is not None and time.monotonic() - seen.since < seen.member.lease
            if living and seen is not None and incarnation in ("", seen.member.incarnation):
                return None if self._has_ended(seen.member) else seen
        return None

    def _expected(self, replica: str, incarnation: str, fresh: float) -> "_Seen | None":
        """As `_living`, or a server that is dead by the file system's times alone, until its next sign is late."""
        living = self._living(replica, incarnation, fresh)
        seen = living or self._seen.get(replica)
        if living or seen is None or incarnation not in ("", seen.member.incarnation) or self._has_ended(seen.member):
            return living
        return seen if time.monotonic() < seen.first + _late(seen) else None

    def _is_late(self, seen: _Seen) -> bool:
        """Tells whether the next sign of a server is late, and it is dead soon if none comes."""
        now = time.monotonic()
        dead = max(seen.since + seen.member.lease, seen.first + _late(seen))
        return now - seen.since >= _late(seen) and dead - now <= LONGEST_WAIT

    def _one_lives_at(self, address: str) -> bool:
        """As `lives_at`, of the servers that were seen so far."""
        told = [seen.member for seen in list(self._seen.values()) if seen.member.address == address]
        return any(self.alive(member.replica, member.incarnation) for member in told)

    def _has_ended(self, member: Member) -> bool:
        return has_ended(self._directory, member.replica, member.incarnation, member.machine)

    def _look(self, replica: str, fresh: float) -> "_Seen | None":
        """Returns what is known of another server, from its sign unless that was looked at so few seconds ago."""
        now = first = time.monotonic()
        before = self._seen.get(replica)
        if before is not None and now - before.looked < fresh:
            return before
        member = self._read(replica)
        if member is None:
            self._seen.pop(replica, None)
            return None
        if before is None:
            since = self._since(replica, now)
        elif before.member == member:
            since, first = before.since, before.first
        else:  # given after the last look, whatever the file system says
            since = self._since(replica, now)
            if since < before.looked - member.lease:
                self._unlike.add(replica)
                since = now
            since = max(since, before.looked)
        found = _Seen(member, since, first, now)
        self._seen[replica] = found
        return found

    def _since(self, replica: str, now: float) -> float:
        """Returns when a sign was given, by this server's clock: so long before its own as the file system says.

        Where that cannot be told, since it says whole seconds alone, or has times from clocks that differ, or this
        server gave no sign for long, that is now.
        """
        if replica in self._unlike:
            return now
        try:
            other = os.stat(self._directory / replica).st_mtime_ns
            told, mine = self._heartbeat.last
        except FileNotFoundError:
            return now
        coarse = other % SECOND == 0 and mine % SECOND == 0
        return now if coarse or now - told >= self._lease else min(now, told + (other - mine) / SECOND)

    def _read(self, name: str) -> Member | None:
        """Returns what another server tells; None for none, and for this one."""
        member = read_sign(self._directory, name, self._lease) if is_replica(name) else None
        return None if member is None or member.incarnation == self.incarnation else member


def _late(seen: _Seen) -> float:
    """Returns how long after a sign of a server the next one is late."""
    return seen.member.lease * LATE_BEATS / BEATS
