"""What starts server processes, and how they are watched and killed."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [str(ROOT), *(str(ROOT / folder) for folder in ("proto", "client", "server"))]
FAILPOINTS = "BACKWIRE_FAILPOINTS"
END_SECONDS = 60.0


class Process(NamedTuple):
    """A process that may be another's child: its number, and a descriptor of it."""

    pid: int
    descriptor: int

    def kill(self) -> None:
        """Kills it, unless it has ended."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def has_ended(self, seconds: float) -> bool:
        """Waits up to so many seconds for its end, and tells whether it has come."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def children(self) -> "list[Process]":
        """Returns the processes that it has started and that have not ended."""
        found = []
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{self.pid}/task").glob("*/children"):
                found += [int(pid) for pid in path.read_text().split()]
        return list(_opened(found))


class Launcher(Protocol):
    """What starts server processes."""

    def launch(self, arguments: Sequence[str], failpoints: str, streams: Sequence[int]) -> Process:
        """Starts a server with these standard streams."""

    def close(self) -> None:
        """Ends what is needed to start servers."""


class ColdLauncher:
    """Starts a Python interpreter for every server, as users do."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def launch(self, arguments: Sequence[str], failpoints: str, streams: Sequence[int]) -> Process:
        """Starts a server with these standard streams."""
        command = [sys.executable, "-m", "backwire_server", *arguments]
        stdin, stdout, stderr = streams
        self.close()
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=_environment(**{FAILPOINTS: failpoints})
        )
        self._started.append(process)
        return Process(process.pid, os.pidfd_open(process.pid))

    def close(self) -> None:
        """Notes which processes have ended."""
        self._started = [process for process in self._started if process.poll() is None]


class WarmLauncher:
    """Has servers forked from a process that has imported everything, which takes milliseconds; see `warm`."""

    def __init__(self) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = here
        self._mutex = threading.Lock()
        command = [sys.executable, "-m", "tests.faults.warm"]
        with there:
            self._process = subprocess.Popen(command, stdin=there.fileno(), env=_environment(), cwd=ROOT)
        assert here.recv(64) == b"ready", "tests.faults.warm did not start"

    def launch(self, arguments: Sequence[str], failpoints: str, streams: Sequence[int]) -> Process:
        """Starts a server with these standard streams."""
        request = json.dumps({"arguments": arguments, "failpoints": failpoints}).encode()
        with self._mutex:
            socket.send_fds(self._socket, [request], streams)
            data, descriptors, _, _ = socket.recv_fds(self._socket, 64, 1)
        return Process(int(data), descriptors[0])

    def close(self) -> None:
        """Ends the process."""
        self._socket.close()
        self._process.wait(END_SECONDS)


def _environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
    path = os.pathsep.join([*FOLDERS, *filter(None, [inherited.get("PYTHONPATH")])])
    return {**inherited, "PYTHONPATH": path, **variables}


def _opened(pids: Iterable[int]) -> Iterator[Process]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            yield Process(pid, os.pidfd_open(pid))
