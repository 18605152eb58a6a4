"""Puts in place what snippets of some pages take for granted: files in the working directory, and names."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.docs.pages import ROOT

import backwire as bw

CERTIFICATES = ROOT / "tests/client/tls"


def prepare(page: str) -> dict[str, Any]:
    """Makes the files of a page in the working directory, and returns the names that its snippets begin with."""
    make = PREPARATIONS.get(page)
    return {} if make is None else make()


def _access() -> dict[str, Any]:
    for name in ("ca.crt", "client.crt"):
        shutil.copy(CERTIFICATES / "server.pem", name)
    shutil.copy(CERTIFICATES / "server.key", "client.key")
    return {"token": "bw_0123456789abcdef_" + 43 * "A"}


def _command_line() -> dict[str, Any]:
    return {"images": np.zeros((4, 64), np.float32), "labels": np.arange(4)}


def _storage() -> dict[str, Any]:
    """Leaves a segment of a journal, named by the first argument, and a checkpoint."""
    loss = bw.squared_error(bw.parameter("w", [1.0, 2.0]), 0.0)
    with bw.connect("embedded", data_dir="data") as client:
        session = client.create_session(loss, bw.SGD(0.1))
        session.train_step({})
        session.save_checkpoint("kept")
    folder = Path("data/sessions") / session.id
    shutil.copy(folder / "saved-kept.safetensors", "checkpoint-00000000000000000042.safetensors")
    sys.argv[1:] = [str(max(folder.glob("journal-*.log")))]
    return {}


PREPARATIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "access.md": _access,
    "command-line.md": _command_line,
    "storage.md": _storage,
}
