"""A controller knows of its workers what they told, and lets the calls go on of those that are about to end."""

import pytest

from backwire_server.cluster.load import Load, SessionLoad
from backwire_server.cluster.roster import Roster

A, B = (Load(name, f"{name}:1", sessions=(SessionLoad("s", 1, 0.1),)) for name in "ab")


@pytest.fixture
def roster() -> Roster:
    made = Roster({"a": "actor a"})
    made.add("b", "actor b")
    made.hear({"a": A, "b": B}, 10.0)
    return made


def told(roster: Roster, since: float = 0.0) -> dict[str, bool]:
    return {load.worker: load.takes_calls for load in roster.known(since)}


def test_workers_take_calls_from_when_they_tell_their_load(roster: Roster) -> None:
    roster.add("c", "actor c")
    assert roster.loads == [A, B]
    assert told(roster) == {"a": True, "b": True}
    assert all(not load.sessions for load in roster.known(0.0))


def test_a_worker_that_ends_keeps_its_calls_until_it_is_gone_and_gets_no_new_ones(roster: Roster) -> None:
    assert roster.retire("a")
    assert not roster.retire("a")
    roster.hear({"b": B}, 100.0)
    assert (roster.loads, list(roster.staying)) == ([B], ["b"])
    assert told(roster, 99.0) == {"a": False, "b": True}
    roster.forget("a")
    assert told(roster) == {"b": True}
    assert roster.names == ["b"]
    assert not roster.retire("a")


def test_a_worker_that_ends_is_never_mute_however_long_that_takes(roster: Roster) -> None:
    roster.retire("a")
    assert roster.mute(1_000.0) == {"b": "actor b"}
    assert told(roster) == {"a": False}


def test_a_worker_that_gives_no_answer_keeps_its_calls_for_a_while_and_gets_no_new_ones(roster: Roster) -> None:
    roster.hear({"b": B}, 12.0)
    assert roster.loads == [B]
    assert told(roster, 10.0) == {"a": False, "b": True}
    assert told(roster, 11.0) == {"b": True}
    roster.hear({"a": A, "b": B}, 13.0)
    assert told(roster, 13.0) == {"a": True, "b": True}


def test_a_worker_that_ray_says_is_down_has_no_calls_and_is_not_mute(roster: Roster) -> None:
    roster.hear({"a": OSError("it is started anew"), "b": B}, 12.0)
    assert told(roster) == {"b": True}
    assert list(roster.staying) == ["a", "b"]
    assert roster.mute(1_000.0) == {"b": "actor b"}


def test_what_a_worker_tells_after_it_is_forgotten_is_not_heard(roster: Roster) -> None:
    roster.forget("a")
    roster.hear({"a": A, "b": B}, 12.0)
    assert roster.loads == [B]


def test_a_worker_is_absent_from_when_it_is_asked_first_until_it_tells_its_load(roster: Roster) -> None:
    roster.add("c", "actor c")
    assert roster.absent() == []
    roster.hear({"a": A, "b": B}, 11.0)
    roster.hear({"a": A, "b": OSError("it is started anew")}, 12.0)
    assert (roster.absent(), roster.absent(11.5)) == (["b", "c"], ["c"])
    roster.hear({"a": A, "b": B, "c": B}, 13.0)
    assert roster.absent() == []


def test_a_worker_that_was_absent_and_is_gone_is_so_no_more(roster: Roster) -> None:
    roster.add("c", "actor c")
    roster.hear({"a": A, "b": B}, 11.0)
    roster.retire("c")
    assert roster.absent() == ["c"]
    roster.forget("c")
    assert roster.absent() == []
