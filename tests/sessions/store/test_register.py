"""Sessions are known in the order in which they were added."""

from types import SimpleNamespace
from typing import Any

from backwire_server.sessions.caller import ANYONE
from backwire_server.sessions.store.register import Register


def session(session_id: str) -> Any:
    return SimpleNamespace(session_id=session_id)


def test_one_that_comes_instead_of_another_is_the_last_and_hides_none_from_who_reads_on() -> None:
    register = Register()
    for each in ("a", "b"):
        register.add(session(each))
    instead = session("a")
    assert register.add(instead, instead=True) is instead
    (number, first), *_ = register.after(-1, ANYONE)
    assert [first.session_id, *(each.session_id for _, each in register.after(number, ANYONE))] == ["b", "a"]
    assert register.census == (2, 3)


def test_one_whose_id_is_taken_is_not_added() -> None:
    register = Register()
    first = register.add(session("a"))
    assert register.add(session("a")) is first
    assert register.census == (1, 1)
