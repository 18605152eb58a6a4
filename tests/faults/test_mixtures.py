"""All features of a session at once, in any order, come to the bits of a server that nothing befalls."""

import numpy as np
import pytest
from tests.faults import replicas
from tests.faults.games import FORGETFUL
from tests.faults.mixed_script import mixed_script
from tests.faults.replicas import play_on_replicas
from tests.faults.rounds import Arena, Disturbance, play
from tests.faults.tasks import mixed_task

DEEDS = 15
KILL_SECONDS = 1.0


def test_features_that_are_mixed_come_through_kills_and_hibernation(arena: Arena) -> None:
    seed = 2
    draw = np.random.default_rng(seed)
    task, script = mixed_task(draw, "numpy"), mixed_script(draw, DEEDS)
    verdict = play(arena, seed, script, Disturbance(kill_seconds=KILL_SECONDS, flags=FORGETFUL), task)
    assert verdict.told == []


def test_features_that_are_mixed_come_through_replicas_that_are_killed_and_moves_between_them(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "STALLS", 0.0)  # a client may wait for 10 s until its connection to one breaks
    seed = 4
    draw = np.random.default_rng(seed)
    task, script = mixed_task(draw, "numpy"), mixed_script(draw, DEEDS)
    assert play_on_replicas(arena, seed, script, task, KILL_SECONDS, *FORGETFUL).told == []
