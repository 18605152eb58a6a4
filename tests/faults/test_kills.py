"""Whenever the server is killed, no acknowledged mutation is lost and none is applied twice, to the bit."""

import numpy as np
import pytest
from tests.faults.games import forgotten_sessions
from tests.faults.rounds import Arena, Disturbance, play
from tests.faults.script import drawn_script, tour
from tests.faults.tasks import parts_task

from backwire_server.storage import failpoints

PLACES = (
    # creating a session
    *("create.made", "definition.begun", "definition.half", "definition.written", "definition.synced"),
    *("definition.renamed", "manifest.begun", "manifest.half", "manifest.written", "manifest.synced"),
    *("segment.created", "segment.headed", "create.filled", "create.renamed"),
    # a mutation, and the start after one that was written in part
    *("journal.append", "journal.append.half", "journal.renewed", "journal.cut", "journal.append.written"),
    *("journal.append.half=ENOSPC,journal.append.undo", "journal.flush", "journal.flushed"),
    # a checkpoint
    *("checkpoint.begun", "checkpoint.half", "checkpoint.written", "checkpoint.synced", "checkpoint.renamed"),
    *("manifest.renamed", "manifest.committed"),
    # a branch that is made and deleted
    *("fork.linked", "fork.journal", "deletion.begun", "deletion.half", "deletion.written", "deletion.synced"),
    *("deletion.renamed", "delete.noted", "delete.renamed"),
    # the way back to a checkpoint, and another branch
    *("prune.checkpoint", "prune.segment", "delete.removed"),
)
"""All failpoints, in an order in which two tours come to them."""

LONG = 2_000
"""So many deeds that the kills come before them, also on a machine that is slow to start a server."""


@pytest.mark.parametrize(("durability", "seed"), [("journal", 1), ("fsync", 2)])
def test_nothing_is_lost_or_doubled_when_the_server_is_killed_at_random_moments(
    arena: Arena, durability: str, seed: int
) -> None:
    script = drawn_script(np.random.default_rng(seed), LONG)
    verdict = play(arena, seed, script, Disturbance(durability, kill_seconds=0.2, least_kills=2))
    assert verdict.told == []
    assert verdict.happened["kill"] > 1


@pytest.mark.parametrize(("durability", "seed"), [("journal", 7), ("fsync", 8)])
def test_nothing_is_lost_or_doubled_when_a_server_is_killed_that_computes_in_parts(
    arena: Arena, durability: str, seed: int
) -> None:
    script = drawn_script(np.random.default_rng(seed), LONG)
    verdict = play(arena, seed, script, Disturbance(durability, kill_seconds=0.6, least_kills=2), parts_task())
    assert verdict.told == []
    assert verdict.happened["kill"] > 1


@pytest.mark.parametrize(("durability", "seed"), [("journal", 3), ("fsync", 4)])
def test_nothing_is_lost_or_doubled_when_the_server_is_killed_amid_a_message(
    arena: Arena, durability: str, seed: int
) -> None:
    script = drawn_script(np.random.default_rng(seed), 20)
    verdict = play(arena, seed, script, Disturbance(durability, ("kill",), nbytes=2_000))
    assert verdict.told == []
    assert verdict.happened["kill"] > 1


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_at_any_failpoint(arena: Arena) -> None:
    named = {each.partition("=")[0] for place in PLACES for each in place.split(",")}
    after_losses_of_power = {name for name in failpoints.NAMES if name.startswith("mend.")}
    assert named == set(failpoints.NAMES) - after_losses_of_power
    armed = tuple(f"{place}=kill" for place in PLACES)
    verdict = play(arena, 5, [*tour(), *tour()], Disturbance("fsync", failpoints=armed))
    assert verdict.told == []
    assert verdict.happened["kill"] == len(PLACES) + 1, "the tours come to all of them"


def test_a_session_in_memory_is_told_to_be_gone_after_a_kill_and_nothing_else_is_wrong(arena: Arena) -> None:
    assert forgotten_sessions(arena, 6).told == []
