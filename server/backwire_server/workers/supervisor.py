"""Keeps as many workers as there should be: starts them, replaces those that end, and ends all."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from backwire_server.config import Config
from backwire_server.config_values import LONGEST_SOCKET_PATH
from backwire_server.sessions.info import request_slot, slot_of
from backwire_server.telemetry.collecting import Staff
from backwire_server.workers.assignment import Place, assign
from backwire_server.workers.process import WorkerProcess, remove
from backwire_server.workers.routing import lost, new_tag, no_worker, tag_of

REMEMBERED = 1_024
"""Of how many workers that ended the tags are remembered, so that their sessions are told to be lost."""

QUICK_END = 10.0
LONGEST_PAUSE = 30.0
KILL_SECONDS = 2.0
"""What a worker has on top of the grace to end, before it is killed."""

_LOG = logging.getLogger("backwire.workers")


class Supervisor:
    """The workers of a server, by the tags and slots in the ids of their sessions. For the thread of the event loop.

    Attributes:
        on_change: Called whenever workers have come or gone, or told something new.
        restarts: How many workers ended and were replaced, or are about to be.
    """

    def __init__(self, settings: Config, descriptor: int | None = None) -> None:
        """Prepares for the settings' number of workers; raises OSError when there is no place for their sockets."""
        self.on_change: Callable[[], None] = lambda: None
        self.restarts = 0
        self._settings = settings
        self._descriptor = descriptor
        self._tags: dict[int, str] = {}
        self._directory = None if self._by_ports_alone else _private_directory()
        self._workers: dict[str, WorkerProcess] = {}
        self._lost: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._closing: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that serve."""
        return list(self._workers.values())

    @property
    def staff(self) -> Staff:
        """How many serve, how many should, and how many had to be replaced."""
        return Staff(len(self._workers), self._settings.worker_count, self.restarts)

    @property
    def by_number(self) -> dict[int, WorkerProcess]:
        """Those that serve, by their numbers from 0."""
        return {index: self._workers[tag] for index, tag in sorted(self._tags.items()) if tag in self._workers}

    async def start(self) -> None:
        """Starts all workers and waits until they serve; raises OSError when one does not."""
        count = self._settings.worker_count
        started = await asyncio.gather(*(self._start(index) for index in range(count)), return_exceptions=True)
        self._keepers = [
            asyncio.create_task(self._keep(index, worker))
            for index, worker in enumerate(started)
            if isinstance(worker, WorkerProcess)
        ]
        for problem in started:
            if isinstance(problem, BaseException):
                await self.stop(0.0)
                raise problem

    def find(self, session_id: str) -> WorkerProcess:
        """Returns the worker that keeps a session, or any for an id that is none: it knows how to refuse it.

        Raises SessionLost when the worker has ended, NoWorker when there is none at all, or none yet for a session that
        is durable.
        """
        slot = slot_of(session_id)
        if slot is not None:
            worker = self._with_slot(slot)
            if worker is None:
                raise lost(session_id)
            return worker
        tag = tag_of(session_id)
        if tag in self._lost:
            raise lost(session_id)
        return self._workers.get(tag) or self.roomiest()

    def for_new(self, request_id: str) -> WorkerProcess:
        """Returns the worker to make a session on; raises NoWorker when there is none.

        Where sessions are durable, it follows from the request, so that a repetition finds it after a restart too.
        """
        if self._settings.keeping.data_dir is not None and request_id:
            worker = self._with_slot(request_slot(request_id))
            if worker is None:
                raise no_worker()
            if worker.room > 0:
                return worker
        return self.roomiest()

    def roomiest(self) -> WorkerProcess:
        """Returns the worker that has room for the most sessions; raises NoWorker when there is none."""
        if not self._workers:
            raise no_worker()
        return max(self._workers.values(), key=lambda worker: worker.room)

    def by_tag(self, tag: str) -> WorkerProcess | None:
        """Returns the worker with this tag if it serves."""
        return self._workers.get(tag)

    def _with_slot(self, slot: int) -> WorkerProcess | None:
        """Returns the worker that keeps the durable sessions of a slot if it serves."""
        return self._workers.get(self._tags.get(slot % self._settings.worker_count, ""))

    async def stop(self, grace: float) -> None:
        """Ends all workers: those that have calls in progress after so many seconds are killed."""
        self._stopping = True
        self._changed.set()
        workers = self.workers
        for worker in workers:
            worker.end()
        await asyncio.gather(*(worker.has_ended(grace + KILL_SECONDS) for worker in workers))
        for worker in workers:
            worker.end(signal.SIGKILL)
        await asyncio.gather(*self._keepers)
        await asyncio.gather(*self._closing)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _start(self, index: int) -> WorkerProcess:
        tag = new_tag()
        place = self._place(index, tag)
        assignment = assign(self._settings, place, tag, index)
        worker = await WorkerProcess.start(assignment, place.target, self._descriptor, lambda: self.on_change())
        self._workers[tag] = worker
        self._tags[index] = tag
        self.on_change()
        return worker

    async def _keep(self, index: int, worker: WorkerProcess) -> None:
        """Replaces a worker whenever it ends, at once at first, and after longer and longer pauses if that is soon."""
        pause = 0.0
        while True:
            began = time.monotonic()
            await worker.ended.wait()
            self._forget(index, worker)
            if self._stopping:
                return
            pause = 0.0 if time.monotonic() - began > QUICK_END else min(LONGEST_PAUSE, 2 * pause + 0.1)
            replacement = None
            while replacement is None and not self._stopping:
                replacement, pause = await self._replace(index, pause)
            if replacement is None:
                return
            worker = replacement
            if self._stopping:
                worker.end()

    async def _replace(self, index: int, pause: float) -> tuple[WorkerProcess | None, float]:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), pause)
        if self._stopping:
            return None, pause
        try:
            return await self._start(index), pause
        except OSError as error:
            _LOG.error("worker %d could not be replaced: %s", index, error)
            return None, min(LONGEST_PAUSE, 2 * pause + 0.1)

    def _forget(self, index: int, worker: WorkerProcess) -> None:
        del self._workers[worker.tag]
        self._lost[worker.tag] = None
        if len(self._lost) > REMEMBERED:
            del self._lost[next(iter(self._lost))]
        self.on_change()
        remove(self._place(index, worker.tag).target)
        if not self._stopping:
            self.restarts += 1
            told = "worker %d (process %d) ended with status %s; it is replaced, its sessions in memory alone are lost"
            _LOG.error(told, index, worker.pid, worker.status)
        self._closing.append(asyncio.create_task(worker.close()))
        self._closing = [task for task in self._closing if not task.done()]

    @property
    def _by_ports_alone(self) -> bool:
        """Whether workers have no sockets: this process calls them at their ports, which are not encrypted."""
        return self._settings.worker_port is not None and self._settings.access.tls_certificate is None

    def _place(self, index: int, tag: str) -> Place:
        host = self._settings.listen.rpartition(":")[0]
        port = (self._settings.worker_port or 0) + index
        if self._directory is None:
            here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
            return Place(f"{host}:{port}", f"{here}:{port}", f":{port}")
        path = f"unix:{self._directory / tag}"
        if self._settings.worker_port is None:
            return Place(path, path, path)
        return Place(path, path, f":{port}", encrypted=f"{host}:{port}")


def _private_directory() -> Path:
    """Returns a new directory that only this user may enter, for sockets; raises OSError when there is no place."""
    places = ["/dev/shm"]
    with contextlib.suppress(FileNotFoundError):
        places.insert(0, tempfile.gettempdir())
    for place in places:
        with contextlib.suppress(OSError):
            directory = tempfile.mkdtemp(prefix="backwire-workers-", dir=place)
            if len(os.fsencode(directory)) + 16 <= LONGEST_SOCKET_PATH:
                return Path(directory)
            os.rmdir(directory)
    raise OSError(
        f"there is no place for the sockets of workers in {' or '.join(places)}; set TMPDIR to a directory that can be "
        "written, or serve from a single process by --workers 1"
    )
