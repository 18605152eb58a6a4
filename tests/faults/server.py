"""Real server processes on a data directory, which are killed and started again at the same address."""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tests.faults.launchers import END_SECONDS, Launcher, Process
from tests.ports import unused_port

PREFIX = b"backwire listening on "
REVIVAL_SECONDS = 0.005

FLAGS = ("--exit-with-parent", "--log-level", "warning", "--checkpoint-bytes", "3000")
"""With so few bytes of journal a checkpoint follows the other."""


class Server:
    """A server that can be killed and started again at the same address, with the same data directory.

    A context manager, which kills it at its end. May be used by several threads at once.

    Attributes:
        address: What clients connect to.
        deaths: How often it was killed, by failpoints too.
        start_seconds: How long its last start took until it served.
    """

    def __init__(self, launcher: Launcher, directory: Path, *flags: str, workers: int = 1, kept: bool = True) -> None:
        """Prepares for a server with further flags; its sessions are kept in the directory if they are `kept`."""
        self.address = f"127.0.0.1:{unused_port()}"
        self.deaths = 0
        self.start_seconds = 0.0
        self._launcher = launcher
        self._log = directory / "log"
        self._flags = [*FLAGS, *(["--data-dir", str(directory / "data")] if kept else []), *flags]
        self._workers = workers
        self._mutex = threading.RLock()
        self._process: Process | None = None
        self._lifeline = -1  # the server ends when this is closed, by the end of this process too

    def start(self, failpoints: str = "") -> bool:
        """Starts it with these failpoints armed; returns whether it serves, and did not die on the way.

        Raises AssertionError when it ended otherwise.
        """
        began = time.monotonic()
        with self._mutex:
            assert self._process is None, "it runs already"
            process, lines = self._launch(failpoints)
            self._process = process
        with lines:
            line = lines.readline()
        if line.startswith(PREFIX):
            self.address = line.removeprefix(PREFIX).strip().decode()
            self.start_seconds = time.monotonic() - began
            return True
        with self._mutex:
            if self._process is process:  # it was not killed from here
                assert "kill" in failpoints, f"the server did not start:\n{self.log}"
                self.bury()
        return False

    def kill(self) -> None:
        """Kills its process, and waits until those that it has started have ended, too."""
        with self._mutex:
            if self._process is None:
                return
            workers = self._process.children()
            self._process.kill()
            self.bury()
            for worker in workers:
                assert worker.has_ended(END_SECONDS), "a worker outlives its server"
                os.close(worker.descriptor)

    def kill_worker(self, index: int) -> None:
        """Kills one of the processes that it has started, if there are any."""
        with self._mutex:
            workers = self._process.children() if self._process else []
            if workers:
                workers[index % len(workers)].kill()
                self.deaths += 1
            for worker in workers:
                os.close(worker.descriptor)

    def stall(self, seconds: float) -> None:
        """Has its process do nothing for so long, as a machine does that stalls; returns when it goes on."""
        with self._mutex:
            if self._process is not None and not self._process.has_ended(0.0):
                self._process.signal(signal.SIGSTOP)
                time.sleep(seconds)
                self._process.signal(signal.SIGCONT)

    @property
    def died(self) -> bool:
        """Whether it does not run."""
        with self._mutex:
            return self._process is None or self._process.has_ended(0.0)

    def bury(self) -> None:
        """Waits for the end of its process, after which it can be started again."""
        with self._mutex:
            if self._process is None:
                return
            assert self._process.has_ended(END_SECONDS), "a process that was killed did not end"
            self.deaths += 1
            os.close(self._process.descriptor)
            os.close(self._lifeline)
            self._process = None

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return self._log.read_text() if self._log.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def _launch(self, failpoints: str) -> tuple[Process, BinaryIO]:
        """Returns a process and what it writes to standard output."""
        arguments = ["--listen", self.address, "--workers", str(self._workers), *self._flags]
        stdin, self._lifeline = os.pipe()
        output, stdout = os.pipe()
        stderr = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            process = self._launcher.launch(arguments, failpoints, (stdin, stdout, stderr))
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)
        return process, open(output, "rb")


@contextlib.contextmanager
def revived(server: Server, failpoints: Iterable[str] = ()) -> Iterator[None]:
    """Starts the server, and again whenever it has died, as a supervisor of services does, until the block ends.

    Each start takes the next of the failpoints, and none when these are used up; at the end it serves with none.
    """
    ending, armed = threading.Event(), itertools.chain(failpoints, itertools.repeat(""))
    server.start(next(armed))

    def revive() -> None:
        while not ending.wait(REVIVAL_SECONDS):
            if server.died:
                server.bury()
                server.start(next(armed))

    reviver = threading.Thread(target=revive, name="reviver")
    reviver.start()
    try:
        yield
    finally:
        ending.set()
        reviver.join()
        server.kill()
        server.start()
