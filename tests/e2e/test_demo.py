"""The demo, as a user runs it, but shorter."""

import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-m", "backwire", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_demo_learns_digits_and_draws_how(tmp_path: Path) -> None:
    picture = tmp_path / "new" / "digits.png"
    finished = run("--epochs", "8", "--output", str(picture))
    assert finished.returncode == 0, finished.stderr
    assert "test accuracy 9" in finished.stdout
    assert f"picture: {picture}" in finished.stdout
    assert "loss=" in finished.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000


def test_an_accuracy_below_the_goal_is_a_failure(tmp_path: Path) -> None:
    finished = run("--epochs", "1", "--output", str(tmp_path / "digits.png"))
    assert finished.returncode == 1
    assert "below the goal of 97%" in finished.stderr
