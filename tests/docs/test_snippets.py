"""The documentation is true: its Python runs and prints what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, agree, pages, python

PACKAGES = os.pathsep.join(str(ROOT / folder) for folder in ("", "proto", "client", "server"))
WITH_PYTHON = [page for page in pages() if python(page)]


NEEDED = {"guides/jax.md": ["jax"], "guides/pytorch.md": ["torch", "onnx"]}
"""What pages need that is too large for each who develops; CI has it."""


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_snippets_of_a_page_run_and_print_what_it_says(page: str, tmp_path: Path) -> None:
    for package in NEEDED.get(page, []):
        pytest.importorskip(package)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.running", page],
        cwd=tmp_path,
        env={**inherited, "PYTHONPATH": PACKAGES, "OTEL_SDK_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for snippet, printed in zip(python(page), json.loads(done.stdout), strict=True):
        if snippet.printed is not None:
            assert agree(printed, snippet.printed), (
                f"{page}:{snippet.line} printed\n{printed}\nbut says\n{snippet.printed}"
            )


def test_most_pages_have_snippets() -> None:
    assert len(WITH_PYTHON) >= 20


@pytest.mark.parametrize(
    ("printed", "said", "same"),
    [
        ("loss 1.000", "loss 1.001", True),
        ("loss 1.000", "loss 1.1", False),
        ("step 3", "step 3", True),
        ("step 3", "step 4", False),
        ("[[ 1.5  2.5]]", "[[1.5 2.5]]", True),
        ("ok 1.0\n", "ok 1.0", True),
        ("one 1.0", "other 1.0", False),
        ("1.0", "1.0 2.0", False),
    ],
)
def test_outputs_agree_when_words_and_whole_numbers_are_equal_and_fractions_close(
    printed: str, said: str, same: bool
) -> None:
    assert agree(printed, said) is same
