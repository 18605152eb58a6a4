"""The metrics of a server with workers: those of each process, and how the workers themselves are doing."""

import os
import re
import signal
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.workers.conftest import Served


def told(server: Served) -> re.Match[str] | None:
    """Where the server says that it tells its figures, once that is read."""
    return re.search(r"metrics on (\S+?/metrics)", "".join(server.errors))


def figures(server: Served) -> dict[tuple[str, str], float]:
    """All figures that have no label but the worker, by name and worker."""
    url = told(server)
    assert url is not None
    with urllib.request.urlopen(f"http://{url[1]}", timeout=20) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, sample.labels["worker"]): sample.value
        for family in families
        for sample in family.samples
        if set(sample.labels) == {"worker"} or family.name == "backwire_build_info"
    }


@pytest.fixture
def watched(start: Callable[..., Served], until: Callable[[Callable[[], Any]], Any]) -> Served:
    server = start("--metrics-listen", "127.0.0.1:0")
    until(lambda: told(server))
    return server


def test_each_process_tells_its_share_and_what_it_runs(
    watched: Served, until: Callable[[Callable[[], Any]], Any]
) -> None:
    def of_all() -> dict[tuple[str, str], float] | None:
        """Without a worker that has not told its own in time, there are none."""
        found = figures(watched)
        return found if {("backwire_build_info", each) for each in ("front", "0", "1")} <= found.keys() else None

    found = until(of_all)
    assert {worker for name, worker in found if name == "backwire_build_info"} == {"front", "0", "1"}
    assert {worker for name, worker in found if name == "backwire_sessions_awake"} == {"0", "1"}
    assert found["backwire_workers", "front"] == found["backwire_workers_wanted", "front"] == 2
    assert found["backwire_worker_restarts_total", "front"] == 0


def test_a_worker_that_had_to_be_replaced_is_counted(
    watched: Served, until: Callable[[Callable[[], Any]], Any]
) -> None:
    workers = until(lambda: watched.workers)
    os.kill(workers[0], signal.SIGKILL)
    until(lambda: figures(watched)["backwire_worker_restarts_total", "front"] == 1)
    until(lambda: figures(watched)["backwire_workers", "front"] == 2)
