"""The README is true: its Python runs, it lists every error reason, and the files it names exist."""

import re
from pathlib import Path

import pytest

from backwire_api.reasons import Reason

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 2


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[-1][:40])
def test_a_snippet_runs_and_prints_what_it_says(
    snippet: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    for comment in re.findall(r"^print.*?#.*?(\[.*\])$", snippet, re.MULTILINE):
        assert re.sub(r"\s+", " ", comment) in printed


def test_every_reason_is_listed() -> None:
    listed = set(re.findall(r"`([A-Z][A-Z_]+)`", README))
    assert set(Reason) <= listed


def test_the_files_it_names_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target.partition("#")[0]).exists(), target
