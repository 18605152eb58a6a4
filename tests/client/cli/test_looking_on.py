"""`backwire top` and `backwire watch`, of a server that tells what the test has it tell."""

import itertools
import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from backwire._cli import _frames, _main
from backwire_api.v1 import gradient_service_pb2 as service_pb2

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def status(seconds: float, **steps: int) -> service_pb2.GetStatusResponse:
    message = service_pb2.GetStatusResponse(version="7", workers=2, session_count=1_234, awake_count=3)
    message.start_time.FromDatetime(BEGIN - timedelta(hours=2))
    message.time.FromDatetime(BEGIN + timedelta(seconds=seconds))
    for name, count in steps.items():
        session = message.sessions.add(session_id=name, steps=count, state=service_pb2.SESSION_STATE_AWAKE)
        session.tenant, session.step, session.memory_bytes = "acme", count, 2_500
        session.last_use_time.FromDatetime(BEGIN)
    return message


def history(*losses: float | None, first: int = 1, seconds: float = 0.5) -> service_pb2.GetSessionHistoryResponse:
    """Steps from `first` on, one in each `seconds`; told right after the last."""
    message = service_pb2.GetSessionHistoryResponse(next_cursor=f"after {first + len(losses) - 1}")
    message.session.session_id, message.session.state = "a", service_pb2.SESSION_STATE_AWAKE
    message.session.step = first + len(losses) - 1
    for step, loss in enumerate(losses, first):
        record = message.steps.add(step=step, loss=loss, gradient_norm=step / 2, learning_rate=0.1)
        record.time.FromDatetime(BEGIN + timedelta(seconds=seconds * step))
    message.time.FromDatetime(BEGIN + timedelta(seconds=seconds * message.session.step))
    return message


@pytest.fixture
def run(target: str, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = _main.main([*arguments, "--interval", "0.001", "--target", target])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


class TestTop:
    def test_prints_one_table_with_the_busiest_first(self, run: Any, service: "FakeService") -> None:
        service.statuses += [status(0, slow=5, fast=10), status(2, slow=6, fast=30)]
        service.statuses[1].load.calls.used, service.statuses[1].load.calls.limit = 3, 64
        service.statuses[1].load.recovering = 2
        service.statuses[1].sessions[1].loss = 0.123456
        code, out, err = run("top", "--sessions", "7")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert re.fullmatch(r"backwire 7 at .*: up 2 h, 2 processes", lines[0])
        assert lines[1] == "sessions: 1,234, of which 3 in memory with 0 B"
        assert lines[2].startswith("load: calls 3 of 64, streams 0 of 0")
        assert lines[3:5] == ["recovering: 2 sessions", ""]
        assert lines[5].split()[:6] == ["SESSION", "TENANT", "STATE", "STEP", "STEPS/S", "LOSS"]
        fast, slow = (line.split() for line in lines[6:])
        assert fast[:8] == ["fast", "acme", "awake", "30", "10", "0.1235", "-", "-"]
        assert slow[:6] == ["slow", "acme", "awake", "6", "0.5", "-"]
        assert fast[8:] == ["0", "2.5", "kB", "2", "s"]
        assert [each.max_sessions for each in service.requests["GetStatus"]] == [7, 7]

    def test_without_load_tells_the_sessions_alone(self, run: Any, service: "FakeService") -> None:
        service.statuses += [status(0), status(2)]
        code, out, _ = run("top", "--once")
        assert (code, "load" in out) == (0, False)
        assert len(out.splitlines()) == 4

    def test_as_json_is_for_programs(self, run: Any, service: "FakeService") -> None:
        service.statuses += [status(0, a=5), status(2, a=6, new=100)]
        service.statuses[1].sessions[0].loss = math.nan
        code, out, _ = run("top", "--json")
        document = json.loads(out)
        assert (code, document["version"], document["load"]) == (0, "7", None)
        old, new = document["sessions"]
        assert (old["id"], old["steps_per_second"], old["loss"]) == ("a", 0.5, None)
        assert (new["id"], new["steps_per_second"], new["nbytes"]) == ("new", None, 2_500)
        assert datetime.fromisoformat(document["time"]) == BEGIN + timedelta(seconds=2)

    def test_on_a_terminal_goes_on_until_it_ends(
        self, run: Any, service: "FakeService", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[str] = []
        monkeypatch.setattr(_frames, "live", lambda: lambda frames: shown.extend(_rows(frames)))
        service.statuses += [status(0, a=5), status(1, a=6), status(2, a=8)]
        code, out, err = run("top")
        assert (code, out) == (1, "")
        assert err.startswith("backwire: there is no such session"), "how this server ends"
        assert [row.split()[4] for row in shown] == ["-", "1", "2"]


def _rows(frames: Any) -> Iterator[str]:
    for frame in frames:
        yield list(frame.text())[-1]


class TestWatch:
    def test_prints_a_line_whenever_there_were_steps(self, run: Any, service: "FakeService") -> None:
        service.histories += [history(8.0, 4.0), history(first=3), history(2.0, 1.0, first=3)]
        code, out, err = run("watch", "a")
        assert (code, err.count("\n")) == (1, 1), "the session was deleted in the end"
        head, *lines = (line.split() for line in out.splitlines())
        assert head == ["TIME", "STEP", "LOSS", "NORM", "LR", "STEPS/S"]
        assert lines == [
            ["03:04:06.000", "2", "4", "1", "0.1", "2"],
            ["03:04:07.000", "4", "1", "2", "0.1", "2"],
        ]
        assert [each.cursor for each in service.requests["GetSessionHistory"]] == ["", "after 2", "after 2", "after 4"]

    def test_once_shows_what_is_kept_with_curves(self, run: Any, service: "FakeService") -> None:
        service.histories.append(history(*(float(each) for each in range(20, 0, -1))))
        code, out, _ = run("watch", "a", "--once")
        lines = out.splitlines()
        assert code == 0
        assert lines[0] == "session a: awake, step 20, 2 steps/s"
        assert re.fullmatch(r"loss +1  █▇?█?[▁▂▃▄▅▆▇█]+▁", lines[1])
        assert re.fullmatch(r"norm +10  ▁[▁▂▃▄▅▆▇█]+█", lines[2])
        assert lines[-1].split() == ["03:04:15.000", "20", "1", "10", "0.1"]
        assert len(lines) == 3 + 1 + 1 + 15

    def test_of_a_session_without_steps_says_so(self, run: Any, service: "FakeService") -> None:
        service.histories.append(history())
        code, out, _ = run("watch", "a", "--once")
        assert code == 0
        assert out.splitlines()[0] == "session a: awake, step 0, 0 steps/s"

    def test_as_json_is_a_line_for_each_step(self, run: Any, service: "FakeService") -> None:
        service.histories += [history(8.0, math.nan), history(None, first=3)]
        code, out, _ = run("watch", "a", "--json")
        found = [json.loads(line) for line in out.splitlines()]
        assert code == 1
        assert [(each["step"], each["loss"], each["gradient_norm"]) for each in found] == [
            (1, 8.0, 0.5),
            (2, None, 1.0),
            (3, None, 1.5),
        ]
        assert datetime.fromisoformat(found[0]["time"]) == BEGIN + timedelta(seconds=0.5)

    def test_as_json_once_ends(self, run: Any, service: "FakeService") -> None:
        service.histories += [history(8.0, 4.0), history(2.0, first=3)]
        code, out, err = run("watch", "a", "--json", "--once")
        assert (code, out.count("\n"), err) == (0, 2, "")

    def test_on_a_terminal_keeps_the_steps_of_before(
        self, run: Any, service: "FakeService", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        curves: list[str] = []

        def show(frames: Any) -> None:
            curves.extend(frame.lines[1].split()[-1] for frame in itertools.islice(frames, 2))

        monkeypatch.setattr(_frames, "live", lambda: show)
        service.histories += [history(2.0, 1.0), history(0.0, first=3)]
        assert run("watch", "a")[0] == 0
        assert curves == ["█▁", "█▅▁"]
