"""A private server process that lives and dies with this one."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import IO

import grpc

from backwire._errors import BackwireError
from backwire._errors_service import ServerStartError
from backwire._wire import _channel, _health

START_TIMEOUT = 60.0
_STOP_TIMEOUT = 15.0
_LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes


class EmbeddedServer:
    """A server on a unix socket that only this user can open.

    It ends when `stop` is called, when this object is collected, when the interpreter exits, and also when this process
    is killed: then its standard input, which this process holds, reaches its end.
    """

    def __init__(self, data_dir: str | os.PathLike[str] | None = None) -> None:
        """Starts the server and waits until it serves; raises ServerStartError, with its standard error, otherwise.

        With a directory, it keeps sessions there.
        """
        directory = _private_directory()
        self.target = f"unix:{directory / 'sock'}"
        self._log = directory / "server.log"
        self._process = _start(self.target, self._log, data_dir)
        self._stop = weakref.finalize(self, _stop, self._process, directory, os.getpid())
        try:
            self._wait_until_serving()
        except BaseException:
            self._stop()
            raise

    def stop(self) -> None:
        """Ends the server and removes its directory; stopping again does nothing."""
        self._stop()

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        socket = Path(self.target.removeprefix("unix:"))
        with contextlib.closing(_channel.open_channel(self.target, token=None, tls=None)) as channel:
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    code = self._process.returncode
                    raise ServerStartError(f"the server ended with exit code {code}:\n{self._tail()}")
                if socket.exists() and _is_serving(channel):
                    return
                time.sleep(0.01)
        raise ServerStartError(f"the server did not serve within {START_TIMEOUT:g} s; it wrote:\n{self._tail()}")

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-4000:].strip() or "(nothing)"


def _is_serving(channel: grpc.Channel) -> bool:
    with contextlib.suppress(BackwireError):
        return _health.health(_health.checking(channel), timeout=0.2, wait_for_ready=True) == "SERVING"
    return False


def _private_directory() -> Path:
    """Returns a new directory of mode 0700, short enough for the path of a socket."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    directory = tempfile.mkdtemp(prefix="backwire-")
    if len(os.fsencode(directory)) + len("/sock") > _LONGEST_SOCKET_PATH:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="backwire-", dir="/tmp")
    return Path(directory)


def _remove_abandoned(parent: Path) -> None:
    """Removes the directories of clients that were killed: those whose log no server holds locked any more."""
    for log in parent.glob("backwire-*/server.log"):
        with contextlib.suppress(OSError), log.open("rb") as file:
            found = log.parent.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > START_TIMEOUT:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(log.parent)


def _start(target: str, log: Path, data_dir: str | os.PathLike[str] | None) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "backwire_server", "--listen", target, "--workers", "1", "--exit-with-parent"]
    command += [] if data_dir is None else ["--data-dir", os.path.abspath(data_dir)]
    stderr: IO[bytes]
    with log.open("wb") as stderr:
        fcntl.flock(stderr, fcntl.LOCK_EX)  # the server inherits the lock with the file, and loses it when it ends
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # an interrupt of a notebook must not end the server
        )


def _stop(process: "subprocess.Popen[bytes]", directory: Path, owner: int) -> None:
    if os.getpid() != owner:  # a fork of the owner must not end the owner's server
        return
    if process.stdin is not None:
        process.stdin.close()
    for end in (process.terminate, process.kill):
        try:
            process.wait(_STOP_TIMEOUT)
            break
        except subprocess.TimeoutExpired:
            end()
    process.wait()
    shutil.rmtree(directory, ignore_errors=True)
