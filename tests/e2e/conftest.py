"""Starts the real server as a process of its own and makes sure that it ends."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
PACKAGES = os.pathsep.join(str(ROOT / folder) for folder in ("proto", "client", "server"))


class ServerProcess:
    """A server that serves: its address, its process, and what it says."""

    def __init__(self, *flags: str, environment: dict[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
        path = os.pathsep.join(filter(None, [PACKAGES, inherited.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backwire_server", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, "PYTHONPATH": path, **(environment or {})},
        )
        self.errors: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the end, so that whoever waits for a line sees that none will come

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    def wait_until_ready(self) -> str:
        """Returns the address that clients connect to."""
        try:
            line = self._lines.get(timeout=START_SECONDS)
        except queue.Empty:
            raise AssertionError(f"the server did not start:\n{''.join(self.errors)}") from None
        prefix = "backwire listening on "
        assert line.startswith(prefix), f"{line}\n{''.join(self.errors)}"
        return line.removeprefix(prefix).rstrip("\n")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        """Returns the exit status, once the server has ended and all it said was read."""
        status = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return status

    @property
    def further_lines(self) -> list[str]:
        """What it wrote to standard output after the line that says that it is ready."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return [line for line in lines if line]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def start_server() -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers on free ports of this machine, with further flags and environment variables."""
    started: list[ServerProcess] = []

    def start(*flags: str, environment: dict[str, str] | None = None) -> ServerProcess:
        if "--listen" not in flags and "BACKWIRE_LISTEN" not in (environment or {}):
            flags = ("--listen", "127.0.0.1:0", *flags)
        started.append(ServerProcess(*flags, environment=environment))
        return started[-1]

    yield start
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def server_address() -> Iterator[str]:
    """The address of a server with default settings, which all tests of this process share."""
    server = ServerProcess("--listen", "127.0.0.1:0")
    try:
        yield server.wait_until_ready()
        server.signal()
        assert server.wait() == 0, "".join(server.errors)
    finally:
        server.end()
