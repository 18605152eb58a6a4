"""A worker process, as the front sees it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import grpc

from backwire_server.workers.assignment import Assignment

START_SECONDS = 60.0
CLOSE_SECONDS = 5.0
METRICS_SECONDS = 2.0
LONGEST_LINE = 64 << 20
"""The most bytes of one report: metrics of many tenants are long."""

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class WorkerProcess:
    """A worker that serves. Made by `start`; all methods are for the thread of the event loop.

    Attributes:
        tag: What the ids of its sessions have in them.
        channel: The connection to it.
        ended: Set once the process has ended.
        creating: How many calls that create sessions are on their way to it.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        assignment: Assignment,
        target: str,
        on_report: Callable[[], None] = lambda: None,
    ) -> None:
        """Watches over a process that was told its assignment and serves on `target`."""
        self.tag = assignment.tag
        self.channel = grpc.aio.insecure_channel(target, _OPTIONS)
        self.ended = asyncio.Event()
        self.creating = 0
        self._most_sessions = assignment.limits.max_sessions
        self._acknowledged = 0
        self._census = {"sessions": 0, "created": 0, "recovering": 0, "hangs": 0}
        self._on_report = on_report
        self._process = process
        self._asking: list[asyncio.Future[str]] = []
        self._tasks = [asyncio.create_task(self._read_reports()), asyncio.create_task(self._await_end())]

    @classmethod
    async def start(
        cls,
        assignment: Assignment,
        target: str,
        descriptor: int | None = None,
        on_report: Callable[[], None] = lambda: None,
    ) -> "WorkerProcess":
        """Starts a process, which inherits the descriptor, and waits until it serves; raises OSError when it does not.

        `on_report` is called whenever it has told how many sessions there are, or are still to be recovered.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "backwire_server.workers.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            pass_fds=() if descriptor is None else (descriptor,),
            start_new_session=True,  # an interrupt at the terminal is for the front, which ends its workers in order
        )
        try:
            assert process.stdin is not None
            process.stdin.write(assignment.to_json().encode() + b"\n")
            first = await asyncio.wait_for(_await_serving(process), START_SECONDS)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                raise OSError(f"a worker did not serve within {START_SECONDS:g} s; see what it logged") from None
            raise
        worker = cls(process, assignment, target, on_report)
        worker._census["recovering"] = first.get("recovering", 0)
        await worker._connect()
        return worker

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The status that it ended with, negative for a signal; None while it lives."""
        return self._process.returncode

    @property
    def recovering(self) -> int:
        """How many of its sessions are still to be recovered since its start."""
        return self._census["recovering"]

    @property
    def hangs(self) -> bool:
        """Whether its data directory does."""
        return bool(self._census["hangs"])

    @property
    def room(self) -> int:
        """How many more sessions it may keep, besides those that are about to be created."""
        unseen = max(0, self._acknowledged - self._census["created"])
        return self._most_sessions - self._census["sessions"] - unseen - self.creating

    def note_created(self) -> None:
        """Counts a session that the worker said it has created, until the worker's own count has it."""
        self._acknowledged += 1

    async def metrics(self) -> str:
        """Returns its metrics in Prometheus' text format; nothing when it does not tell them in METRICS_SECONDS."""
        asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asking.append(asked)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"metrics\n")
            return await asyncio.wait_for(asked, METRICS_SECONDS)
        except (OSError, TimeoutError):
            return ""
        finally:
            self._asking.remove(asked)

    async def has_ended(self, within: float) -> bool:
        """Waits up to so many seconds for the process to end, and tells whether it has."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), within)
        return self.ended.is_set()

    def end(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal; SIGTERM lets calls in progress come to their end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def close(self) -> None:
        """Closes the connection, after the process has ended, once the calls on it have noticed."""
        await asyncio.gather(*self._tasks)
        await self.channel.close(CLOSE_SECONDS)

    async def _connect(self) -> None:
        """Waits for the connection, unless the process ends first."""
        connected = asyncio.ensure_future(self.channel.channel_ready())
        await asyncio.wait({connected, *self._tasks}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        connected.cancel()

    async def _read_reports(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if (metrics := told.pop("metrics", None)) is not None:
                    for asked in self._asking:
                        if not asked.done():
                            asked.set_result(metrics)
                else:
                    self._census.update(told)
                    self._on_report()

    async def _await_end(self) -> None:
        await self._process.wait()
        self.ended.set()


async def _await_serving(process: asyncio.subprocess.Process) -> dict[str, int]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise OSError(f"a worker ended with status {await process.wait()} before it served; see what it logged")
    told: dict[str, Any] = json.loads(line)
    if problem := told.get("error"):
        raise OSError(problem)
    return told


def remove(target: str) -> None:
    """Removes the socket that a worker which was killed has left, when its target is one."""
    if target.startswith("unix:"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target.removeprefix("unix:"))
