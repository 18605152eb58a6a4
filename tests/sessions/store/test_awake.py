"""Of the durable sessions in memory, those that were not used for the longest time go first, and none that is busy."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backwire_server.sessions.store import awake
from backwire_server.sessions.store.awake import AwakeSessions

MANY = 1_000


class Sleeper:
    """What is known here of a session."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.awake = True
        self.busy = False
        self.shuts = 0

    def hibernate(self) -> bool:
        if self.busy or not self.awake:
            return False
        self.awake = False
        return True

    def shut(self) -> None:
        self.shuts += 1


Fill = Callable[..., tuple[AwakeSessions, list[Any]]]


@pytest.fixture
def fill() -> Fill:
    """Returns the sessions in memory, at most so many, after each of some were used."""

    def make(names: str, most: int = MANY) -> tuple[AwakeSessions, list[Any]]:
        sessions: list[Any] = [Sleeper(name) for name in names]
        found = AwakeSessions(most)
        for session in sessions:
            found.used(session)
        return found, sessions

    return make


def told(sessions: list[Any]) -> str:
    """The names of those in memory."""
    return "".join(session.session_id for session in sessions if session.awake)


def test_those_that_are_too_many_hibernate_in_the_order_of_their_last_use(fill: Fill) -> None:
    found, (a, b, c) = fill("abc", most=3)
    found.used(a)
    assert told([a, b, c]) == "abc"
    d: Any = Sleeper("d")
    found.used(d)
    assert told([a, b, c, d]) == "acd"
    e: Any = Sleeper("e")
    found.used(e)
    assert told([a, b, c, d, e]) == "ade"
    assert len(found) == 3


def test_use_again_counts_once(fill: Fill) -> None:
    found, sessions = fill("ab", most=2)
    for session in sessions * 3:
        found.used(session)
    assert (len(found), told(sessions)) == (2, "ab")


def test_a_busy_session_stays_and_the_next_goes(fill: Fill) -> None:
    found, (a, b, c) = fill("abc")
    a.busy = True
    assert found.put_away()
    assert told([a, b, c]) == "ac"
    a.busy = False
    assert found.put_away()
    assert told([a, b, c]) == "c"


def test_nobody_goes_while_all_are_busy_however_many_they_are(fill: Fill) -> None:
    found, sessions = fill("abc", most=3)
    for session in sessions:
        session.busy = True
    assert not found.put_away()
    sessions.append(Sleeper("d"))
    found.used(sessions[-1])
    assert (len(found), told(sessions)) == (4, "abcd"), "nor the one that is about to be used"
    sessions[0].busy = sessions[1].busy = False
    found.used(sessions[-1])
    assert (len(found), told(sessions)) == (3, "bcd")


def test_only_the_longest_unused_are_looked_at(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awake, "CANDIDATES", 2)
    found, (a, b, c) = fill("abc")
    a.busy = b.busy = True
    assert not found.put_away()
    assert c.awake
    found.used(a)
    assert found.put_away()
    assert told([a, b, c]) == "ab"


def test_there_is_nothing_to_put_away_where_there_is_no_session(fill: Fill) -> None:
    found, sessions = fill("")
    assert (found.put_away(), len(found), sessions) == (False, 0, [])


def test_a_session_that_is_in_memory_no_more_makes_room_itself(fill: Fill) -> None:
    found, (a, b) = fill("ab")
    a.awake = False
    assert found.put_away()
    assert (told([a, b]), len(found)) == ("b", 1)


def test_sessions_that_are_in_memory_no_more_are_forgotten(fill: Fill) -> None:
    found, (a, b, c) = fill("abc")
    a.awake = c.awake = False
    found.prune()
    assert (len(found), told([a, b, c])) == (1, "b")


def test_a_session_that_ended_is_not_put_away(fill: Fill) -> None:
    found, (a, b) = fill("ab")
    found.remove("a")
    found.remove("a")
    assert found.put_away()
    assert (told([a, b]), len(found)) == ("a", 0)


def test_at_the_end_all_let_go_of_their_files_and_those_hibernate_for_which_there_is_time(fill: Fill) -> None:
    found, (a, b, c) = fill("abc")
    b.busy = True
    found.shut(3600.0)
    assert told([a, b, c]) == "b"
    assert b.shuts == 1
    found, sessions = fill("abc")
    found.shut(0.0)
    assert (told(sessions), [session.shuts for session in sessions]) == ("abc", [1, 1, 1])


def test_threads_that_use_sessions_at_once_leave_no_more_than_there_may_be(fill: Fill) -> None:
    found, _ = fill("", most=5)
    sessions: list[Any] = [Sleeper(str(number)) for number in range(50)]

    def use(number: int) -> None:
        session = sessions[number % 50]
        session.awake = True
        found.used(session)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(400)))
    assert len(found) <= 5
