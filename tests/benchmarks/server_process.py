"""Servers to measure, each a process of its own on a free port of this machine."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [str(ROOT), *(str(ROOT / folder) for folder in ("proto", "client", "server"))]
PREFIX = "backwire listening on "


def environment(**variables: str) -> dict[str, str]:
    """Returns this process's environment with the packages of the source tree on the path, and these variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
    path = os.pathsep.join([*FOLDERS, *filter(None, [inherited.get("PYTHONPATH")])])
    return {**inherited, "PYTHONPATH": path, **variables}


def errors() -> int | None:
    """Returns where the errors of processes go: to the terminal when BENCH_VERBOSE is set, else nowhere."""
    return None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL


class ServerProcess:
    """A process that tells its address in its first line. A context manager; it ends with this process.

    Attributes:
        address: The address that clients connect to.
        pid: The process.
    """

    def __init__(self, *arguments: str, module: str = "backwire_server") -> None:
        """Starts `python -m module` with these arguments and waits until it serves."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors(),
            env=environment(),
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(PREFIX):
            self.close()
            raise OSError(f"{module} did not start: {line.strip() or 'it said nothing'}")
        self.address = line.removeprefix(PREFIX).strip()
        self.pid = self._process.pid

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def backwire_server(*flags: str) -> ServerProcess:
    """Returns a Backwire server over TCP that ends with this process."""
    return ServerProcess("--listen", "127.0.0.1:0", "--exit-with-parent", "--log-level", "error", *flags)


def resident_bytes(pid: int, *, children: bool = True) -> int:
    """Returns the physical memory of a process, and by default of its children that still run."""
    own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if not children:
        return own
    listed = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return own + sum(resident_bytes(int(child)) for each in listed for child in each)


def cpu_seconds(pid: int) -> float:
    """Returns how long a process has computed, in the kernel too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
