"""What sessions tell of their definitions is kept within bounds, and once where it is the same."""

from dataclasses import replace
from typing import Any

import pytest

from backwire_server.sessions.keeping.outlines import Outline, Outlines


@pytest.fixture
def outline(dot: Any) -> Outline:
    return Outline.of(dot())


def named(outline: Outline, name: str) -> Outline:
    return replace(outline, outputs=(name,))


def test_parts_that_are_equal_are_kept_once(dot: Any) -> None:
    kept = Outlines()
    one = kept.keep("one", Outline.of(dot()))
    other = kept.keep("other", replace(Outline.of(dot()), seed=7))
    assert one.parameters is other.parameters
    assert one.optimizer is other.optimizer
    assert (one.seed, other.seed) == (0, 7)
    assert kept.find("one") is one
    assert kept.keep("one", one) is one
    assert kept.find("third") is None


def test_those_that_were_asked_for_longest_ago_go_first(outline: Outline) -> None:
    kept = Outlines(most=2)
    for definition in ("one", "two"):
        kept.keep(definition, outline)
    kept.find("one")
    kept.keep("three", outline)
    assert [each for each in ("one", "two", "three") if kept.find(each)] == ["one", "three"]


def test_parts_take_no_more_room_than_they_may(outline: Outline) -> None:
    kept = Outlines(most_bytes=2 * named(outline, "y").nbytes)
    for number in range(6):  # three of each
        kept.keep(f"{number}", named(outline, "xy"[number % 2]))
    assert len(kept) == 6
    kept.keep("z", named(outline, "z"))
    assert [each for each in "012345z" if kept.find(each)] == ["5", "z"]
    large = replace(outline, outputs=("y",) * 99)
    assert kept.keep("large", large) == large
    assert len(kept) == 0
    kept.keep("after", outline)
    assert kept.find("after") == outline
