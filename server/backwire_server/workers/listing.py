"""One list of the sessions of all workers, in the order of their creation, a page at a time.

Each worker lists its own sessions in that order. The lists are merged by the times of creation; a page token says how
far each worker's list was read, and so is small, whatever the number of sessions.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from backwire_api.v1 import gradient_service_pb2 as pb

Fetch = Callable[[str, int], Awaitable[pb.ListSessionsResponse]]
"""Returns a page of one worker: of the list after a token, and of at most so many sessions."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a worker's list was read: the token of the page that was begun, and the last session that was told."""

    token: str = ""
    time: int = -1
    session_id: str = ""


Positions = Mapping[str, Position]
"""Positions by the tags of workers; a worker that is not there was not read at all."""


def write_positions(positions: Positions) -> bytes:
    """Returns bytes from which `read_positions` makes equal positions."""
    data = {tag: [each.token, each.time, each.session_id] for tag, each in positions.items()}
    return json.dumps(data, separators=(",", ":")).encode()


def read_positions(data: bytes) -> Positions:
    """Returns what `write_positions` wrote; the caller has seen to it that nothing else comes here."""
    return {tag: Position(*each) for tag, each in json.loads(data).items()}


async def merge(
    workers: Mapping[str, Fetch], positions: Positions, size: int, room: int
) -> tuple[list[pb.Session], Positions | None]:
    """Returns the next sessions, and the positions after them, None when these are the last.

    Returns at most `size` sessions, fewer where they would take more than `room` bytes, and at least one if there is
    one.
    """
    each = min(size, size // max(1, len(workers)) + 1)
    readers = {tag: _Reader(fetch, positions.get(tag, Position()), each) for tag, fetch in workers.items()}
    found: list[pb.Session] = []
    while True:
        heads = {tag: head for tag, reader in readers.items() if (head := await reader.head()) is not None}
        if not heads:
            return found, None
        tag, head = min(heads.items(), key=lambda item: (_time(item[1]), item[0]))
        room -= head.ByteSize()
        if len(found) == size or (found and room < 0):
            return found, {tag: reader.position for tag, reader in readers.items()}
        found.append(head)
        readers[tag].advance()


@dataclass
class _Reader:
    """Reads on in the list of a worker, a page at a time."""

    fetch: Fetch
    position: Position
    size: int
    _page: list[pb.Session] = field(default_factory=list)
    _next: str | None = None
    """The token of the page after; empty when there is none, None before the first was fetched."""

    async def head(self) -> pb.Session | None:
        """Returns the next session, None after the last."""
        while not self._page and self._next != "":
            if self._next is not None:
                self.position = Position(self._next, self.position.time, self.position.session_id)
            response = await self.fetch(self.position.token, self.size)
            sessions = list(response.sessions)
            self._page = self._untold(sessions) if self._next is None else sessions
            self._next = response.next_page_token
        return self._page[0] if self._page else None

    def advance(self) -> None:
        """Goes on to the session after `head`."""
        told = self._page.pop(0)
        self.position = Position(self.position.token, _time(told), told.session_id)

    def _untold(self, page: list[pb.Session]) -> list[pb.Session]:
        """Returns what follows the last session that was told; it may have been deleted meanwhile."""
        ids = [each.session_id for each in page]
        if self.position.session_id in ids:
            return page[ids.index(self.position.session_id) + 1 :]
        return [each for each in page if _time(each) > self.position.time]


def _time(session: pb.Session) -> int:
    return session.create_time.ToNanoseconds()
