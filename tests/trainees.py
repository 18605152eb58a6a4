"""Sessions that are trained without pause while their servers come and go, against the same training undisturbed."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from tests.e2e.conftest import ServerProcess
from tests.ports import unused_port

import backwire as bw

Way = Literal["calls", "pipeline"]
WAYS: tuple[Way, ...] = ("calls", "pipeline")
PATIENCE = 60.0
PAUSE = 0.01  # or most of the time would go into the training to compare with


class Replica:
    """A server that is started again and again on the same directory and at the same address.

    A context manager, which kills it at its end.

    Attributes:
        address: What clients connect to.
    """

    def __init__(
        self,
        directory: Path,
        *flags: str,
        listen: str = "127.0.0.1:0",
        within: Sequence[str] = (),
        module: str = "backwire_server",
    ) -> None:
        """As ServerProcess, which is started with these flags when it is entered."""
        self.address = f"{listen.removesuffix('0')}{unused_port()}" if listen.endswith(":0") else listen
        self._within = within
        self._module = module
        self._flags = ("--data-dir", str(directory), "--exit-with-parent", *flags)
        self._process: ServerProcess | None = None

    def start(self) -> None:
        self._process = ServerProcess("--listen", self.address, *self._flags, within=self._within, module=self._module)
        self.address = self._process.wait_until_ready()

    def kill(self) -> float:
        """Ends it as a crash does; returns when, by the clock that only goes forward."""
        assert self._process is not None
        killed = time.monotonic()
        self._process.end()
        self._process = None
        return killed

    @property
    def log(self) -> str:
        """What it has written to standard error since its last start."""
        assert self._process is not None
        return "".join(self._process.errors)

    def pause(self) -> float:
        """Has it do nothing, as a machine does that stalls; returns once it does, and when, as `kill`."""
        assert self._process is not None
        paused = time.monotonic()
        self._process.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.process.pid, os.WSTOPPED | os.WNOWAIT)
        return paused

    def resume(self) -> None:
        """Has it go on after `pause`."""
        assert self._process is not None
        self._process.signal(signal.SIGCONT)

    def ensure(self) -> None:
        """Has it serve, whether it was killed, paused, or neither."""
        if self._process is None:
            self.start()
        else:
            self.resume()

    def upgrade(self) -> None:
        """Ends it in good order, and starts another in its place."""
        self.end_in_good_order()
        self.start()

    def end_in_good_order(self) -> None:
        """Asks it to end, which it must do with all calls done."""
        assert self._process is not None
        self._process.signal(signal.SIGTERM)
        assert self._process.wait() == 0, "".join(self._process.errors)
        assert "ended before all calls had" not in "".join(self._process.errors)
        self.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()


def graph() -> bw.Graph:
    x = bw.input("x", ("batch", 3))
    hidden = bw.relu(bw.dense(x, 8, name="hidden"))
    return bw.graph(loss=bw.squared_error(bw.dense(hidden, 1, name="line"), bw.input("y", ("batch", 1))))


def create(client: bw.Client, seed: int) -> bw.Session:
    return client.create_session(graph(), optimizer=bw.Adam(0.01), seed=seed)


def batches(seed: int) -> Iterator[dict[str, Any]]:
    """Yields the data of a session, without end and the same each time."""
    draw = np.random.default_rng(seed)
    while True:
        x = draw.normal(size=(4, 3)).astype(np.float32)
        yield {"x": x, "y": x.sum(1, keepdims=True)}


def pipelined(session: bw.Session, data: Iterable[dict[str, Any]]) -> Iterator[bw.TrainStepResult]:
    """Yields the result of a step with each batch, while the next is on its way."""
    waiting: deque[bw.PipelineFuture[bw.TrainStepResult]] = deque()
    with session.pipeline() as pipe:
        for batch in data:
            waiting.append(pipe.train_step(batch, depends="previous"))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Trainee:
    """A session that a thread trains until it is told to end. A context manager, which tells it.

    Attributes:
        session: The session.
        steps: How many steps were acknowledged, one after the other.
        times: When the last of them were, by the clock that only goes forward.
    """

    def __init__(self, session: bw.Session, way: Way, seed: int) -> None:
        """Trains a session that was created with this seed."""
        self.session = session
        self.steps = 0
        self.times: deque[float] = deque(maxlen=256)
        self._seed = seed
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._train, args=(way,), daemon=True)
        self._thread.start()

    def goes_on(self, more: int = 5) -> None:
        """Waits until more steps are acknowledged; raises what a call failed with. Two are on their way at most."""
        with self._changed:
            aim = self.steps + more
            assert self._changed.wait_for(lambda: self._error or self.steps >= aim, PATIENCE), "no step for too long"
        if self._error is not None:
            raise self._error

    def result(self) -> tuple[int, str]:
        """Ends the training; returns the steps and the digest, and raises what a call failed with."""
        self._ended.set()
        self._thread.join(PATIENCE)
        if self._error is not None:
            raise self._error
        return self.steps, self.session.digest()

    def expected(self, client: bw.Client) -> tuple[int, str]:
        """Returns what the same training gives on a server that nothing disturbs."""
        session = create(client, self._seed)
        for _ in pipelined(session, islice(batches(self._seed), self.steps)):
            pass
        return session.info().step, session.digest()

    def _train(self, way: Way) -> None:
        data = takewhile(lambda _: not self._ended.is_set(), batches(self._seed))
        try:
            results = pipelined(self.session, data) if way == "pipeline" else map(self.session.train_step, data)
            for result in results:
                self._acknowledge(result.step)
                time.sleep(PAUSE)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _acknowledge(self, step: int) -> None:
        with self._changed:
            assert step == self.steps + 1, f"step {step} comes after {self.steps}"
            self.steps = step
            self.times.append(time.monotonic())
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)
