"""What the bits of a computation depend on is told from what they do not."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.storage.toy import KEY, append, history, reopened, spec, vault

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.journal import environment as storage_environment
from backwire_server.storage.journal.environment import differences, environment

TELL = """import json
from backwire_server.storage.journal.environment import environment
print(json.dumps(dict(environment())))
"""


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


@pytest.mark.parametrize(("executor", "told"), [(pb.EXECUTOR_NUMPY, False), (pb.EXECUTOR_JAX, True)])
def test_a_session_of_numpy_asks_for_no_jax_though_others_of_its_process_computed_by_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    executor: pb.Executor.ValueType,
    told: bool,
) -> None:
    caplog.set_level(logging.WARNING)
    loaded = {**environment(), storage_environment.JAX: "0.1"}
    monkeypatch.setattr("backwire_server.storage.journal.segments.recorded", lambda: loaded)
    asked: list[bool] = []

    def now(*, devices: bool) -> Mapping[str, str]:
        asked.append(devices)
        return environment()

    monkeypatch.setattr("backwire_server.storage.journal.segments.environment", now)
    files = vault(tmp_path).create("a", spec(executor=executor), Durability.JOURNAL, KEY)
    append(files, 1)
    files.close()
    assert history(reopened(tmp_path).recover()) == [1]
    assert asked == [told]
    assert ("jax was 0.1" in caplog.text) is told


def test_nothing_differs_from_itself() -> None:
    assert differences(environment(), environment()) == ""
