"""A server that clients cancel, cut off and abandon keeps every session as its twin is, and nothing is left of any."""

from pathlib import Path

from tests.faults.launchers import WarmLauncher
from tests.soak.board import CALLS, GOOD, HAPPENINGS, STORIES
from tests.soak.soak import Size, soak


def test_sessions_come_through_a_short_soak_as_their_undisturbed_twins(tmp_path: Path) -> None:
    launcher = WarmLauncher()
    try:
        out = soak(launcher, tmp_path, Size(8, sessions=8, clients=4, seed=1, kill_seconds=3))
    finally:
        launcher.close()
    assert out.wrong == []
    assert {CALLS, GOOD, STORIES, *HAPPENINGS} <= set(out.counts)
