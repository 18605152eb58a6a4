"""What sessions that are on disk alone take in memory."""

import gc
import sys
from enum import Enum
from types import FunctionType, ModuleType

import pytest
from tests.storage.durable import Disk, create, train

from backwire_server.sessions.budget import Budget
from backwire_server.sessions.history import SHORT
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.session import Session
from backwire_server.sessions.store import sweeper
from backwire_server.sessions.store.maker import SessionMaker
from backwire_server.sessions.turns.processors import Processors
from backwire_server.storage.vault import FileVault

SHARED = (type, FunctionType, ModuleType, Enum, Budget, FileVault, Limits, Processors, SessionMaker)
"""What sessions have in common with others."""


def own_bytes(session: Session) -> int:
    """The bytes of all that a session refers to, and no other does."""
    seen, pending, total = set(), [session], 0
    while pending:
        each = pending.pop()
        if id(each) not in seen and not isinstance(each, SHARED):
            seen.add(id(each))
            total += sys.getsizeof(each)
            pending += gc.get_referents(each)
    return total


def test_a_session_that_sleeps_takes_little_memory(disk: Disk) -> None:
    session = create(disk.open())
    train(1)(session, None)
    assert own_bytes(session) > 8_000
    assert session.hibernate()
    assert own_bytes(session) < 4_000


def test_histories_of_those_that_sleep_for_longest_are_shortened(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "LONG_HISTORIES", 1)
    sessions = [create(disk.open()), *(create(disk.store) for _ in range(2))]
    for session in sessions:
        for number in range(SHORT + 4):
            train(number)(session, None)
    assert all(session.hibernate() for session in sessions[:2])
    disk.store.sweep()
    assert [len(session.history.since()[0]) for session in sessions] == [SHORT, SHORT + 4, SHORT + 4]
