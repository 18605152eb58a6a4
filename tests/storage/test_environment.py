"""What the bits of a computation depend on is told from what they do not."""

import json
import logging
import os
import subprocess
import sys

import pytest

from backwire_server.storage import environment as storage_environment
from backwire_server.storage.environment import differences, environment

TELL = (
    "import json\nfrom backwire_server.storage.environment import environment\nprint(json.dumps(dict(environment())))"
)


def test_numpy_without_the_newest_kernels_is_another_environment_on_the_same_processor() -> None:
    found = environment()["cpu features"].split()
    if found == ["none"]:
        pytest.skip("numpy has no kernels for this processor besides those for all")
    without = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found)}
    told = subprocess.run([sys.executable, "-c", TELL], env=without, capture_output=True, text=True, check=True)
    other = json.loads(told.stdout)
    assert other["cpu"] == environment()["cpu"]
    assert "cpu features was none and is" in differences(other, environment())


def test_another_accelerator_is_another_environment_and_a_processor_is_told_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("jax")
    before = environment(devices=True)
    assert "(" not in before["jax"]
    monkeypatch.setattr(storage_environment, "_accelerator", lambda: "NVIDIA H200")
    after = environment(devices=True)
    assert differences(before, after) == f"jax was {before['jax']} and is {before['jax']} (NVIDIA H200)"


def test_what_is_written_without_jax_needs_none_that_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("jax")
    before = environment(devices=True)
    monkeypatch.setitem(sys.modules, "backwire_server.xla.sharding", None)
    storage_environment._accelerator.cache_clear()
    with caplog.at_level(logging.WARNING, "backwire.storage"):
        assert environment(devices=True) == before
    storage_environment._accelerator.cache_clear()
    assert "JAX is installed and cannot be imported" in caplog.text


def test_nothing_differs_from_itself() -> None:
    assert differences(environment(), environment()) == ""
