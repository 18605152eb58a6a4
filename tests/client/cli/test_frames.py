"""Frames on a terminal, and the figures and curves in them."""

import io
import math
import sys
from datetime import timedelta

import pytest
from rich.console import Console
from tests.client.cli.test_looking_on import BEGIN

import backwire as bw
from backwire._cli import _frames, _live, _watch


@pytest.mark.parametrize(
    ("values", "curve"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([1.0, 1.0], "▁▁"),
        ([0.0, math.nan, 7.0, -math.inf], "▁×█×"),
        ([0.0, 0.0, 7.0, 7.0, 3.0, 3.0], "▁█▄"),
        ([-1e308, 1e308], "▁▁"),
        ([0.0, 5e-324], "▁█"),
    ],
)
def test_a_curve_has_a_bar_for_each_share(values: list[float], curve: str) -> None:
    assert _watch.sparkline(values, 3 if len(values) > 4 else 4) == curve


def records(*seconds: float) -> list[bw.StepRecord]:
    return [bw.StepRecord(1, None, 1.0, 0.1, BEGIN + timedelta(seconds=each)) for each in seconds]


@pytest.mark.parametrize(
    ("seconds", "now", "rate"),
    [
        ((), 0, 0.0),
        ((1,), 2, 0.0),
        ((0, 91, 92, 93, 94), 95, 0.75),
        ((0, 30), 60, 1 / 60),
        ((5, 5), 5, 0.0),
        ((3_600, 3_601, 3_602, 1, 2, 3), 4, 2 / 3),  # the clock was set back
    ],
)
def test_speed_is_that_of_the_last_seconds_or_of_the_last_two_steps(
    seconds: tuple[float, ...], now: float, rate: float
) -> None:
    assert _watch.speed(records(*seconds), BEGIN + timedelta(seconds=now)) == rate


class TestTerminal:
    def test_frames_are_drawn_one_in_the_place_of_another(self) -> None:
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=60, height=8)
        head, right = ("NAME", "COUNT"), (1,)
        frames = [
            _frames.Frame(["[first]"], head, [("one", "[1]")], right),
            _frames.Frame(["second"], head, [(f"row {each}", "2") for each in range(99)], right),
        ]
        _live.show(frames, console)
        drawn = screen.getvalue()
        for text in ("[first]", "[1]", "second", "row 4"):
            assert text in drawn
        assert "row 9" not in drawn, "it ends where the terminal does"
        assert drawn.index("\x1b[?1049h") < drawn.index("[first]") < drawn.index("second") < drawn.index("\x1b[?1049l")

    def test_no_terminal_or_no_rich_shows_nothing_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert _frames.live() is None
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        assert _frames.live() is _live.show
        monkeypatch.delitem(sys.modules, "backwire._cli._live")
        monkeypatch.setitem(sys.modules, "rich.console", None)
        assert _frames.live() is None

    def test_a_frame_that_stays_is_whole_and_has_colours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        frame = _frames.Frame([" ".join(["word"] * 30)], ("NAME", "COUNT"), [("[one]", "1")], (1,))
        plain = list(_frames.lines(frame))
        assert plain == [frame.lines[0], "", "NAME   COUNT", "[one]      1"]
        console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=60)
        text = _live.text(frame, console)
        assert text.count("word") == 30
        assert "[one]" in text
        assert "\x1b[1;7mNAME" in text
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setattr(_live, "text", lambda _: "drawn")
        assert list(_frames.lines(frame)) == ["drawn"]

    @pytest.mark.parametrize(
        ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7_200, "2 h"), (200_000, "2 d")]
    )
    def test_an_age_is_told_in_its_largest_unit(self, seconds: float, text: str) -> None:
        assert _frames.age(seconds) == text
