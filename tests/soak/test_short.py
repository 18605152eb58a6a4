"""A server that clients cancel, cut off and abandon keeps every session as its twin is, and nothing is left of any."""

from pathlib import Path

import pytest
from tests.faults.launchers import WarmLauncher
from tests.soak.board import CALLS, GOOD, HAPPENINGS, KILLED, STORIES
from tests.soak.soak import Size, soak


@pytest.mark.parametrize("places", [None, 1], ids=["with room for all", "with room for one call at a time"])
def test_sessions_come_through_a_short_soak_as_their_undisturbed_twins(tmp_path: Path, places: int | None) -> None:
    launcher = WarmLauncher()
    try:
        out = soak(launcher, tmp_path, Size(100, 900, sessions=8, clients=4, seed=1, kill_seconds=2, places=places))
    finally:
        launcher.close()
    assert out.wrong == []
    assert {CALLS, GOOD, STORIES, *HAPPENINGS, KILLED} <= {name for name, count in out.counts.items() if count}
