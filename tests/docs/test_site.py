"""The documentation builds without a warning, has all that is public, and needs nothing from elsewhere."""

import ast
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, ROOT

import backwire as bw

CONFIGURATION = DOCS / "site/mkdocs.yaml"
BRIDGES = ("jax", "onnx", "safetensors", "scipy", "sklearn", "torch")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(CONFIGURATION)]
    done = subprocess.run(
        [*command, "--site-dir", str(folder)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_the_reference_has_every_public_name(site: Path) -> None:
    documented = _documented(site)
    for module in (bw, bw.aio):
        assert {f"{module.__name__}.{name}" for name in set(module.__all__) - {"__version__"}} <= documented
    for bridge, names in _bridges():
        assert {f"{bridge}.{name}" for name in names} <= documented


def test_the_reference_has_what_a_session_inherits(site: Path) -> None:
    assert {f"backwire.Session.{name}" for name in ("forward", "fit", "digest", "id")} <= _documented(site)


def test_a_file_of_the_repository_that_a_page_links_to_is_a_page(site: Path) -> None:
    shown = (site / "files/proto/backwire_api/v1/storage.proto.html").read_text()
    assert "JournalRecord" in shown
    assert "files/proto/backwire_api/v1/storage.proto.html" in (site / "storage.html").read_text()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for path in pages:
        loaded = re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"(https?:[^\"]*)\"", path.read_text())
        assert not loaded, path


def _bridges() -> Iterator[tuple[str, list[str]]]:
    """Yields the modules of bridges and the names in their `__all__`, whether or not what they need is installed."""
    for bridge in BRIDGES:
        source = (ROOT / f"client/backwire/{bridge}/__init__.py").read_text()
        yield f"backwire.{bridge}", ast.literal_eval(source[source.index("__all__ =") :].partition("=")[2].strip())


def _documented(site: Path) -> set[str]:
    """Returns the names that have a place in the site, from its inventory: four lines, then deflated text."""
    inventory = (site / "objects.inv").read_bytes()
    body = zlib.decompress(inventory.split(b"\n", 4)[4]).decode()
    return {line.split(" ", 1)[0] for line in body.splitlines()}
