"""What commands print for programs, and what `bench` measures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1 import health_pb2

import backwire as bw
from backwire._cli import _main
from backwire_api.v1 import gradient_service_pb2 as service_pb2

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService


@pytest.fixture
def told(target: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command with `--json` and returns its exit code and what it told."""

    def run(*arguments: str) -> tuple[int, Any]:
        code = _main.main([*arguments, "--json", "--target", target])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else None

    return run


def test_health_tells_the_status(told: Any, target: str, health_servicer: Any) -> None:
    assert told("health") == (0, {"target": target, "status": "SERVING"})
    health_servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert told("health") == (1, {"target": target, "status": "NOT_SERVING"})


def test_ops_tell_all_about_each(told: Any, service: "FakeService") -> None:
    op = service_pb2.OpInfo(name="Gemm", doc="A product.\nMore.", outputs=1, differentiable=True)
    op.inputs.add(name="A")
    op.inputs.add(name="C", optional=True)
    op.attributes.add(name="alpha").default.number = 1.0
    op.attributes.add(name="axes").default.integers.items.extend([0, 1])
    service.ops = [op]
    code, found = told("ops")
    assert code == 0
    assert found == [
        {
            "name": "Gemm",
            "doc": "A product.\nMore.",
            "inputs": [{"name": "A", "optional": False}, {"name": "C", "optional": True}],
            "variadic": False,
            "attributes": [
                {"name": "alpha", "required": False, "default": 1.0},
                {"name": "axes", "required": False, "default": [0, 1]},
            ],
            "outputs": 1,
            "differentiable": True,
        }
    ]
    assert told("ops", "Gemm") == (0, found)


def test_an_op_that_is_not_there_is_told_after_those_that_are(
    target: str, service: "FakeService", capsys: pytest.CaptureFixture[str]
) -> None:
    service.ops = [service_pb2.OpInfo(name="Gemm", doc="A product.", outputs=1)]
    assert _main.main(["ops", "Gem", "Gemm", "Foo", "--target", target]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("Gemm(")
    assert captured.err == "backwire: the server has no op 'Gem', 'Foo'; `backwire ops` lists all\n"


def test_sessions_are_told_with_what_show_adds(told: Any, session: bw.Session) -> None:
    session.attach(holder="trainer-1")
    session.save_checkpoint("best")
    code, found = told("sessions")
    assert code == 0
    assert found == [
        {
            "session": session.id,
            "created": "2023-11-14T22:13:20+00:00",
            "last_used": found[0]["last_used"],
            "durability": "journal",
            "executor": "numpy",
            "precision": "float32",
            "writer": {"holder": "trainer-1", "lease": 1},
            "step": 0,
            "contributions": 0,
            "passes": 0,
            "parameter_count": 8,
            "optimizer": "sgd",
            "seed": 7,
        }
    ]
    code, shown = told("sessions", "show", session.id)
    assert code == 0
    assert {key: shown[key] for key in found[0]} == found[0]
    assert shown["digest"] == "0" * 64
    assert [(each["name"], each["step"], each["nbytes"]) for each in shown["checkpoints"]] == [("best", 0, 1000)]


def test_what_was_done_to_sessions_is_told(
    told: Any, session: bw.Session, service: "FakeService", tmp_path: Path
) -> None:
    service.file, path = b"a whole session", str(tmp_path / "file")
    assert told("sessions", "fork", session.id) == (0, {"session": "session-1"})
    assert told("sessions", "move", session.id, "--to", "b") == (0, {"session": session.id, "replica": "b"})
    assert told("sessions", "export", session.id, path) == (0, {"session": session.id, "file": path})
    assert told("sessions", "import", path) == (0, {"session": "session-2"})
    assert told("sessions", "delete", session.id) == (0, {"deleted": session.id})
    assert [each["session"] for each in told("sessions", "list")[1]] == ["session-1", "session-2"]
    assert told("sessions", "delete", session.id) == (1, None)


def test_tokens_are_told_but_never_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> Any:
        assert _main.main(["token", *arguments, "--json", "--file", str(tmp_path / "tokens.toml")]) == 0
        return json.loads(capsys.readouterr().out)

    made = run("new", "--tenant", "acme", "--scope", "read", "--expires", "30d")
    assert made.pop("token").startswith(f"bw_{made['id']}_")
    assert set(made) == {"id", "name", "tenant", "scope", "sha256", "expires"}
    assert run("list") == [made]
    assert run("revoke", made["id"]) == {"revoked": [made["id"]]}
    assert run("list") == []


def test_a_token_for_no_file_is_told_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["token", "--json", "new", "--tenant", "acme", "--scope", "write"]) == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out)["name"], captured.err) == ("acme-write", "")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": bw.__version__}


@pytest.fixture(scope="module")
def found() -> Any:
    command = [sys.executable, "-m", "backwire", "bench", "--calls", "30", "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)


class TestBench:
    def test_times_every_kind_of_call(self, found: Any) -> None:
        assert list(found["seconds"]) == ["round_trip", "forward", "train_step", "three_calls", "pipelined"]
        for times in found["seconds"].values():
            assert 0 < times["median"] <= times["p95"] <= times["p99"]
            assert times["per_second"] > 0
        assert set(found["bytes_per_second"]) == {"send", "receive"}
        assert min(found["bytes_per_second"].values()) > 0

    def test_ratios_are_those_of_the_times(self, found: Any) -> None:
        seconds = found["seconds"]
        assert found["ratios"] == pytest.approx(
            {
                "train_step / round_trip": seconds["train_step"]["median"] / seconds["round_trip"]["median"],
                "three_calls / train_step": seconds["three_calls"]["median"] / seconds["train_step"]["median"],
                "pipelined / train_step": seconds["train_step"]["per_second"] / seconds["pipelined"]["per_second"],
            }
        )

    def test_leaves_no_session_and_prints_a_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        with bw.connect("embedded") as client:
            assert _main.main(["bench", "--calls", "5", "--target", client.target]) == 0
            assert list(client.sessions()) == []
        lines = capsys.readouterr().out.splitlines()
        head = lines.index("")
        assert lines[head + 1].split() == ["CALL", "MEDIAN", "P95", "P99", "PER", "SECOND"]
        assert [line.split()[0] for line in lines[head + 2 :]] == [
            "round_trip", "forward", "train_step", "three_calls", "pipelined",
        ]  # fmt: skip
