"""The lists of several workers read as one, in the order of creation, whatever comes and goes between pages."""

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.workers import listing


class FakeWorker:
    """Lists its sessions as a worker does: page tokens stand for how many were ever created."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sessions: dict[int, pb.Session] = {}
        self._numbers = itertools.count()

    def create(self, time: int) -> str:
        number = next(self._numbers)
        session = pb.Session(session_id=f"{self.name}{number}")
        session.create_time.FromNanoseconds(time)
        self.sessions[number] = session
        return session.session_id

    async def fetch(self, token: str, size: int) -> pb.ListSessionsResponse:
        assert size > 0
        rest = [each for each in self.sessions.items() if each[0] > int(token or -1)]
        page = rest[:size]
        after = str(page[-1][0]) if len(page) < len(rest) else ""
        return pb.ListSessionsResponse(sessions=[session for _, session in page], next_page_token=after)


def read_page(
    workers: list[FakeWorker], positions: listing.Positions, size: int, room: int = 1 << 30
) -> tuple[list[str], listing.Positions | None]:
    fetches = {worker.name: worker.fetch for worker in workers}
    found, rest = asyncio.run(listing.merge(fetches, positions, size, room))
    return [each.session_id for each in found], rest


@given(st.data(), st.integers(1, 4), st.lists(st.integers(0, 3), max_size=30), st.integers(1, 7))
def test_all_that_stay_are_told_once_and_in_order(
    data: st.DataObject, count: int, owners: list[int], size: int
) -> None:
    workers = [FakeWorker(name) for name in "abcd"[:count]]
    order = [workers[owner % count].create(time) for time, owner in enumerate(owners)]
    stayed, told = set(order), []
    positions: listing.Positions | None = {}
    while positions is not None:
        page, positions = read_page(workers, positions, size)
        assert len(page) <= size
        told += page
        for worker in workers:
            for number in data.draw(st.lists(st.sampled_from([*worker.sessions] or [-1]), max_size=2)):
                if gone := worker.sessions.pop(number, None):
                    stayed.discard(gone.session_id)
        if positions is not None:
            positions = listing.read_positions(listing.write_positions(positions))
            order.append(workers[data.draw(st.integers(0, count - 1))].create(len(order)))
            stayed.add(order[-1])
            size += len(order) > 60  # whoever lists must be faster than whoever creates
    assert told == sorted(told, key=order.index), "oldest first"
    assert len(told) == len(set(told)), "nothing twice"
    assert stayed <= set(told), "nothing left out"


def test_a_page_ends_where_it_would_be_too_large_but_is_never_empty() -> None:
    workers = [FakeWorker("a"), FakeWorker("b")]
    order = [workers[time % 2].create(time) for time in range(5)]
    page, positions = read_page(workers, {}, 100, room=1)
    assert page == order[:1]
    assert positions is not None
    rest, end = read_page(workers, positions, 100)
    assert (rest, end) == (order[1:], None)


def test_no_workers_have_no_sessions() -> None:
    assert read_page([], {}, 10) == ([], None)
