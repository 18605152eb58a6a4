"""Servers with several workers, as processes of their own."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.waiting import until

import backwire as bw
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = os.pathsep.join(str(ROOT / folder) for folder in ("proto", "client", "server"))
SECONDS = 60.0


class Served:
    """A server with workers: its address, its processes, and clients of it."""

    def __init__(self, *flags: str, directory: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
        path = os.pathsep.join(filter(None, [PACKAGES, inherited.get("PYTHONPATH", "")]))
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backwire_server", "--listen", "127.0.0.1:0", "--workers", "2", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, "PYTHONPATH": path, "TMPDIR": str(directory)},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.errors: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors.append), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        line, prefix = self._lines.get(timeout=SECONDS), "backwire listening on "
        assert line.startswith(prefix), "".join(self.errors)
        self.address = line.removeprefix(prefix).strip()
        self.channel = grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = pb_grpc.GradientServiceStub(self.channel)

    def _read(self, stream: Any, put: Callable[[str], None]) -> None:
        for line in stream:
            put(line)
        put("")

    @property
    def workers(self) -> list[int]:
        """The processes that serve, each once it has its socket."""
        ready = len([path for path in self.directory.glob("backwire-workers-*/*") if path.is_socket()])
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(each) for each in found] if ready == len(found) else []

    def worker_of(self, session: bw.Session) -> int:
        """The process that keeps a session."""
        tag = session.info().address.rpartition("/")[2]
        return next(pid for pid in self.workers if tag in open_sockets(pid))

    def wait(self) -> int:
        status = self.process.wait(SECONDS)
        for reader in self._readers:
            reader.join(SECONDS)
        return status

    def end(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def open_sockets(pid: int) -> str:
    """The paths of the unix sockets that a process listens on or is connected by."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(entry).removeprefix("socket:[").rstrip("]"))
        except FileNotFoundError:
            continue
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return "\n".join(fields[7] for line in lines if len(fields := line.split()) > 7 and fields[6] in inodes)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it has ended, and perhaps while it was looked at
        return False


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts servers with two workers, or with other flags."""
    started: list[Served] = []

    def begin(*flags: str) -> Served:
        started.append(Served(*flags, directory=tmp_path_factory.mktemp("w")))
        return started[-1]

    yield begin
    for server in started:
        server.end()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with two workers that the tests of a module share."""
    server = Served(directory=tmp_path_factory.mktemp("w"))
    yield server
    server.process.terminate()
    try:
        assert server.wait() == 0, "".join(server.errors)
    finally:
        server.end()


@pytest.fixture
def client(served: Served) -> Iterator[bw.Client]:
    with bw.connect(served.address, timeout=SECONDS) as client:
        yield client


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], Any]], Any]:
    return until


@pytest.fixture(name="alive")
def alive_fixture() -> Callable[[int], bool]:
    return alive
