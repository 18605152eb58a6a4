"""Every example of the gallery learns what it is about, on a real server."""

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import backwire as bw
import backwire.examples
from backwire.examples._outcome import Outcome

LEARNED: dict[str, Callable[[Outcome], bool]] = {
    "autoencoder": lambda found: found.before > 0.1 and found.after < 0.01,
    "cnn": lambda found: found.before < 0.4 and found.after > 0.95,
    "data_parallel": lambda found: found.before > 1 and found.after < 0.4 and float(found.note.split()[-1]) < 1e-4,
    "federated": lambda found: found.before < 0.6 and found.after > 0.9,
    "gan": lambda found: found.before > 1 and found.after < 0.25,
    "gradient_penalty": lambda found: abs(found.before - 2.5) > 1 and abs(found.after - 2.5) < 0.25,
    "hessian": lambda found: found.before > 0.1 and found.after < 1e-10,
    "language_model": lambda found: found.before > 3.5 and found.after < 0.8 and "The Zen of Python" in found.note,
    "lstm": lambda found: found.before < 0.4 and found.after > 0.95,
    "mlp": lambda found: found.before < 0.7 and found.after > 0.95,
    "online": lambda found: found.before > 0.5 and found.after < 0.1,
    "policy_gradient": lambda found: found.before < 25 and found.after > 50,
    "split_learning": lambda found: found.before < 0.7 and found.after > 0.95,
}


@pytest.fixture(scope="module")
def client() -> Iterator[bw.Client]:
    with bw.connect("embedded") as connected:
        yield connected


def test_no_example_is_left_out() -> None:
    found = {module.name for module in pkgutil.iter_modules(backwire.examples.__path__)} - {"__main__", "_outcome"}
    assert found == set(LEARNED)
    listed = {line.split("`")[1] for line in str(backwire.examples.__doc__).splitlines() if line.startswith("| `")}
    assert listed == found


@pytest.mark.parametrize("name", LEARNED)
def test_example_learns(name: str, client: bw.Client) -> None:
    found = importlib.import_module(f"backwire.examples.{name}").run(client)
    assert LEARNED[name](found), found
    assert [session.id for session in client.sessions()] == [], "it left a session behind"


def test_example_runs_from_the_command_line_on_a_server_of_its_own() -> None:
    said = _said("backwire.examples.online")
    assert said.startswith("error: 1.31 -> 0.0")
    assert "predicts each event" in _said("backwire.examples.online", "--help")


def test_the_gallery_lists_itself() -> None:
    assert "| `mlp` | dense layers" in _said("backwire.examples")


def _said(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
