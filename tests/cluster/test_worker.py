"""A worker of a cluster has the settings of the gateway, and ends in good order once."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import ray.util

from backwire_server import machine
from backwire_server.cluster import worker
from backwire_server.cluster.worker import Worker
from backwire_server.config import Config
from backwire_server.config_parts import Cluster, Keeping
from backwire_server.config_values import ConfigError
from backwire_server.machine import Tuning
from backwire_server.rpc import logs, server


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the process as it is, which is not a worker's own."""
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(machine, "prepare", lambda *_: None)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


def test_a_worker_that_has_ended_takes_no_calls_and_may_be_ended_again(tmp_path: Path) -> None:
    made = Worker(Config(keeping=Keeping(data_dir=str(tmp_path))), "w")
    assert made.load().takes_calls
    assert made.drain()
    assert not made.load().takes_calls
    assert made.drain(), "which does nothing"


def test_a_worker_has_the_tuning_of_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(server, "Server", lambda *_, **settings: told.update(settings))
    settings = Config(keeping=Keeping(data_dir=str(tmp_path)), tuning=Tuning(group_sessions=True, jax_devices=2))
    with ExitStack() as stack:
        worker._server(settings, stack)
    assert told["tuning"] == settings.tuning


def test_the_sessions_of_a_worker_hold_no_more_memory_than_is_set_aside_for_it(tmp_path: Path) -> None:
    settings = Config(keeping=Keeping(data_dir=str(tmp_path)), cluster=Cluster(ray="auto", worker_memory=1 << 24))
    made = Worker(settings, "w")
    assert made.load().most_bytes == 1 << 24
    made.drain()


def test_a_worker_that_others_could_listen_to_is_refused_by_the_address_of_its_node(tmp_path: Path) -> None:
    settings = Config(listen="127.0.0.1:50051", keeping=Keeping(data_dir=str(tmp_path)), cluster=Cluster(ray="local"))
    with pytest.raises(ConfigError, match=r"address of its node, 192\.0\.2\.2: .*--allow-plaintext"):
        worker.settings_of(settings, "w", "192.0.2.2")


@pytest.mark.parametrize(("found", "serves"), [(["cpu"], False), (["gpu"], False), (["gpu", "gpu"], True)])
def test_a_worker_that_computes_by_jax_serves_where_that_finds_the_gpus_that_are_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[str], *, serves: bool
) -> None:
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(jax, "local_devices", lambda: [type("Device", (), {"platform": each}) for each in found])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    settings = Config(
        keeping=Keeping(data_dir=str(tmp_path)),
        tuning=Tuning(executor="jax"),
        cluster=Cluster(ray="auto", worker_gpus=2),
    )
    if serves:
        assert Worker(settings, "w").drain()
    else:
        with pytest.raises(OSError, match=r"2 GPUs .*CUDA_VISIBLE_DEVICES=4,5.*leave --worker-gpus out"):
            Worker(settings, "w")
