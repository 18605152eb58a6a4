"""A disk that neither writes nor fails holds up the sessions that are on it, and no others."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.storage.durable import SECONDS, Disk, create, do, standing

from backwire_api.tensors import Bytes
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.journal.segment import Segment


def test_sessions_in_memory_go_on_while_the_disk_hangs_and_those_on_it_afterwards(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on, append = threading.Event(), threading.Event(), Segment.append

    def hanging(segment: Segment, record: Sequence[Bytes]) -> None:
        hangs.set()
        assert goes_on.wait(SECONDS)
        append(segment, record)

    store, undisturbed = disk.open(Durability.JOURNAL), disk.undisturbed()
    session, spared = create(store), create(store, durability=Durability.MEMORY)
    monkeypatch.setattr(Segment, "append", hanging)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(do, session, "train")
        assert hangs.wait(SECONDS)
        assert pool.submit(do, spared, "train").result(SECONDS / 2) == do(undisturbed, "train")
        assert not late.done()
        goes_on.set()
        late.result(SECONDS)
    assert standing(session) == standing(undisturbed)
