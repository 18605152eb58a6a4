"""Runs contenders in processes of their own, a burst of steps at a time, in turns, so that noise hits all of them."""

import contextlib
import json
import math
import random
import selectors
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.server_process import ROOT, environment, errors

SETUP_SECONDS = 180.0
RUN_SECONDS = 120.0
END_SECONDS = 10.0
WARM_UP_STEPS = 3
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")


class Unavailable(Exception):
    """A contender that cannot take part, and why."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A contender.

    Attributes:
        name: Its module and variant, for the worker.
        label: What the tables call it.
        is_peer: Whether it runs in the environment of the peers.
        all_threads: Whether its numerical libraries may have as many threads as they like.
    """

    name: str
    label: str
    is_peer: bool = False
    all_threads: bool = False


@dataclass(slots=True)
class Timing:
    """The seconds of a step in each round: of the wall clock, and of all of the worker's threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def ratio(self, peer: "Timing", clock: str = "wall") -> float:
        """Returns the median over the rounds of this time relative to the peer's."""
        pairs = zip(getattr(self, clock), getattr(peer, clock), strict=True)
        return float(statistics.median(own / its for own, its in pairs))


class Worker:
    """A contender's process, which is started again when it has ended. To be closed."""

    def __init__(self, kind: Kind, peer_python: str = sys.executable) -> None:
        """Starts the process."""
        self.kind = kind
        self._python = peer_python if kind.is_peer else sys.executable
        self._start()

    def setup(self, model: str) -> dict[str, Any]:
        """Makes a model ready; raises Unavailable when that fails or takes too long."""
        if self._process.poll() is not None:
            self.close()
            self._start()
        return self._ask({"setup": model}, SETUP_SECONDS)

    def run(self, steps: int) -> dict[str, float]:
        """Returns what so many steps took; raises Unavailable."""
        return self._ask({"run": steps}, RUN_SECONDS)

    def profile(self, steps: int) -> dict[str, Any]:
        """Returns the functions and the operators that take most of so many steps; raises Unavailable."""
        return self._ask({"profile": steps}, RUN_SECONDS)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ready.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [self._python, "-m", "tests.benchmarks.worker", self.kind.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors(),
            env=environment(**({} if self.kind.all_threads else ONE_THREAD)),
            cwd=ROOT,
        )
        self._ready = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._ready.register(self._process.stdout, selectors.EVENT_READ)

    def _ask(self, command: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and then there is no answer either
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        if not self._ready.select(seconds):
            self._process.kill()
            raise Unavailable(f"took more than {seconds:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer


@contextlib.contextmanager
def workers(kinds: Iterable[Kind], peer_python: str) -> Iterator[list[Worker]]:
    """Gives a worker for each kind, and ends them."""
    with contextlib.ExitStack() as stack:
        found = []
        for kind in kinds:
            found.append(Worker(kind, peer_python))
            stack.callback(found[-1].close)
        yield found


def interleave(contenders: Sequence[Worker], *, rounds: int, burst: float) -> tuple[dict[str, Timing], dict[str, str]]:
    """Returns the timing of each contender by name, and why others failed.

    In every round each makes steps for about `burst` seconds, in random order.
    """
    failures: dict[str, str] = {}
    steps: dict[str, int] = {}
    for worker in contenders:
        with _noting(failures, worker):
            steps[worker.kind.name] = _calibrate(worker, burst)
    times = {name: Timing() for name in steps}
    order, shuffle = list(contenders), random.Random(0)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for worker in order:
            name = worker.kind.name
            if name not in failures:
                with _noting(failures, worker):
                    answer = worker.run(steps[name])
                    times[name].wall.append(answer["wall"] / steps[name])
                    times[name].cpu.append(answer["cpu"] / steps[name])
    return {name: timing for name, timing in times.items() if name not in failures}, failures


@contextlib.contextmanager
def _noting(failures: dict[str, str], worker: Worker) -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        failures[worker.kind.name] = str(error)


def _calibrate(worker: Worker, burst: float) -> int:
    """Warms the worker up, and returns how many steps it makes in `burst` seconds."""
    worker.run(WARM_UP_STEPS)
    count = 1
    while True:
        seconds = worker.run(count)["wall"]
        if seconds >= burst / 4:
            return max(1, math.ceil(count * burst / seconds))
        count = max(2 * count, math.ceil(count * burst / 2 / seconds))
