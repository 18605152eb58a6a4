"""Servers to measure that keep sessions on disk, one process each."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.benchmarks.server_process import ROOT, ServerProcess, backwire_server

NEVER = "1Ti"
"""More bytes of journal than any benchmark writes, so that no checkpoint is due."""


@contextmanager
def data_directory() -> Iterator[Path]:
    """Gives an empty directory, and removes it; beside the source tree, since /tmp may be memory."""
    parent = ROOT / "out"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="data-", dir=parent) as path:
        yield Path(path)


def durable_server(directory: Path, *flags: str) -> ServerProcess:
    """Returns a server of one process that keeps its sessions in the directory."""
    return backwire_server("--workers", "1", "--data-dir", str(directory), *flags)


def kill(server: ServerProcess) -> None:
    """Ends the process at once, as a crash does."""
    os.kill(server.pid, signal.SIGKILL)


def seconds_until_serving(address: str) -> float:
    """Returns how long it takes from now on until a server says that all of its sessions are there."""
    begin = time.perf_counter()
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        for answer in watch:
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                break
        watch.cancel()
    return time.perf_counter() - begin
