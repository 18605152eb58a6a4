"""The parts of one batch: given to helpers and to other nodes, computed here where those do not, and put in order."""

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from backwire_server.parallel.member import Member
from backwire_server.parallel.task import Result, Work

WAIT_SECONDS = 0.05
"""After how long a call that waits for helpers looks whether it is to stop."""

Local = Callable[[int], Result]
"""Computes the part of a number in this process."""


class Remote(Protocol):
    """What has parts computed on another node. As a Member it is busy until it is ready; see there.

    Attributes:
        tells: Whether how long the part takes that it has tells how long others will.
    """

    connection: socket.socket
    place: int | None
    busy: bool
    ready: bool
    tells: bool

    @property
    def willing(self) -> bool:
        """Whether it is worth asking: not when it refused a moment ago."""

    @property
    def seconds(self) -> float:
        """How long ago it was given its part."""

    def give(self, work: Work, place: int) -> None:
        """Has it compute a part; raises OSError."""

    def answer(self) -> Result | None:
        """Returns what was computed; None where that was refused. Raises EOFError, OSError."""

    def leave(self) -> None:
        """Has nobody wait for the part that it has: when this returns, nothing is written of it any more."""

    def end(self) -> None:
        """Ends the connection, and what is computed for it."""


class Shift:
    """The parts of one batch, on their way.

    Attributes:
        results: What the parts gave that are done, by their numbers.
        kept: How many of them this process has computed.
        helped: How many helpers have.
        sent: How many other nodes have.
    """

    def __init__(
        self,
        work: Work,
        members: list[Member],
        remotes: list[Remote],
        local: Local,
        lost: Callable[[Member], None],
    ) -> None:
        """Removes those from `members` and `remotes` that end, and tells `lost` of members."""
        self.results: dict[int, Result] = {}
        self.kept = self.helped = self.sent = 0
        self._work, self._members, self._remotes, self._local, self._lost = work, members, remotes, local, lost
        self._waiting = deque(range(work.count))
        self._refused: list[int] = []

    @property
    def done(self) -> bool:
        """Whether all results are there."""
        return len(self.results) == self._work.count

    def go_on(self) -> None:
        """Gives parts to helpers that wait for some, from the last on, and computes the first, or waits for theirs."""
        for member in list(self._members):
            if self._waiting and not member.busy:
                self._give(member, self._chosen(member))
        for remote in list(self._remotes):
            if not remote.busy and remote.willing and self._pays():
                self._give(remote, self._waiting.pop())
        place = self._refused.pop() if self._refused else self._waiting.popleft() if self._waiting else None
        if place is not None:
            self._compute(place)
        self._hear(WAIT_SECONDS if place is None else 0.0)
        self._stop_waiting()

    def abandon(self) -> None:
        """Waits for nobody any more; other nodes need not go on."""
        for member in self._members:
            member.place = None
        for remote in list(self._remotes):
            if remote.place is not None:
                self._lose(remote)

    def _chosen(self, member: Member) -> int:
        """Returns a part that waits no longer: one whose pass the helper has kept, else the last."""
        place = next((place for place in self._waiting if member.has(self._work, place)), self._waiting[-1])
        self._waiting.remove(place)
        return place

    def _pays(self) -> bool:
        return self._work.pace.pays(len(self._waiting), 1 + len(self._members))

    def _compute(self, place: int) -> None:
        began = time.monotonic()
        self.results[place] = self._local(place)
        self._work.pace.computed(time.monotonic() - began)
        self.kept += 1

    def _give(self, member: Member | Remote, place: int) -> None:
        try:
            member.give(self._work, place)
        except OSError:
            self._lose(member)
            self._waiting.append(place)

    def _hear(self, seconds: float) -> None:
        """Takes the answers that have come, or come within so many seconds."""
        with selectors.DefaultSelector() as selector:
            everybody: list[Member | Remote] = [*self._members, *self._remotes]
            for member in everybody:
                if member.busy:
                    selector.register(member.connection, selectors.EVENT_READ, member)
            heard = [key.data for key, _ in selector.select(seconds)]
        for member in heard:
            place, ready = member.place, member.ready
            try:
                result = member.answer()
            except (OSError, EOFError):
                self._lose(member)
                continue
            if place is None or not ready:
                continue  # it is ready now, or done with what nobody waits for
            if result is None:
                self._refused.append(place)
            else:
                self.results[place] = result
                self._note(member)

    def _note(self, member: Member | Remote) -> None:
        """Counts a part that was computed for this process."""
        if isinstance(member, Member):
            self.helped += 1
            return
        self.sent += 1
        if member.tells:
            self._work.pace.answered(member.seconds)

    def _stop_waiting(self) -> None:
        """Has the parts wait again that other nodes take too long for."""
        for remote in self._remotes:
            place, seconds = remote.place, remote.seconds
            if place is not None and seconds > self._work.pace.patience:
                remote.leave()
                self._waiting.append(place)
                if remote.tells:
                    self._work.pace.answered(seconds)

    def _lose(self, member: Member | Remote) -> None:
        """Parts with one that has ended; what it was to compute waits again."""
        if member.place is not None:
            self._waiting.append(member.place)
        if isinstance(member, Member):
            self._members.remove(member)
            self._lost(member)
        else:
            self._remotes.remove(member)
        member.end()
