"""Several clients train one session at once; what they are told must add up to what was done."""

import threading
from collections.abc import Callable

import numpy as np
from tests.faults.actor import Actor
from tests.faults.oracle import Oracle
from tests.faults.rounds import Arena, Disturbance, connected, disturbed, started
from tests.faults.tasks import TASKS, Task
from tests.faults.verdict import Verdict

import backwire as bw

Step = tuple[int, int]
"""The number that a step was told to have, and its batch."""

HOLD_STEPS = 3
"""How many steps a client does before another takes the lease over."""


def race(arena: Arena, seed: int, how: Disturbance, manner: str, clients: int = 2, batches: int = 10) -> Verdict:
    """Has each of the clients do a step for each of its batches in this manner, and returns what came out.

    They go on with as many more until the server was killed as often as it has to be.
    The oracle does them one after another, in the order that the clients were told.
    """
    draw, verdict, steps = np.random.default_rng([seed, 2]), Verdict(), list[Step]()
    task = TASKS[seed % len(TASKS)]
    with started(arena, how) as server:
        with disturbed(server, draw, how, verdict) as address, connected(address) as client:
            actor, done = Actor(client, task, f"{seed}"), 0
            while verdict.good and (not done or server.deaths < (how.least_kills or 0)):
                first, done = done, done + clients * batches
                runs = [
                    _Run(address, task, actor.session.id, f"{seed}-{number}", range(number, done, clients))
                    for number in range(first, first + clients)
                ]
                for run in runs:
                    run.begin(_MANNERS[manner])
                for run in runs:
                    steps += run.end(verdict)
        with connected(server.address) as client:
            found = client.session(actor.session.id).digest()
    if verdict.good:
        _compare(Oracle(arena.undisturbed, task), sorted(steps), found, verdict)
    return verdict


class _Run:
    """A client, and the batches that it is to train on."""

    def __init__(self, address: str, task: Task, session_id: str, label: str, batches: range) -> None:
        self.task = task
        self.batches = list(batches)
        self.steps: list[Step] = []
        self._address = address
        self._session_id = session_id
        self._label = label
        self._requests = 0
        self._error: bw.BackwireError | None = None
        self._thread = threading.Thread()

    def begin(self, manner: Callable[["_Run", bw.Session], None]) -> None:
        def train() -> None:
            try:
                with connected(self._address) as client:
                    manner(self, client.session(self._session_id))
            except bw.BackwireError as error:
                self._error = error

        self._thread = threading.Thread(target=train, name=self._label)
        self._thread.start()

    def end(self, verdict: Verdict) -> list[Step]:
        self._thread.join()
        if self._error is not None:
            verdict.wrong("differing", f"a call of {self._label} failed: {self._error!r}")
        return self.steps

    def new_id(self) -> str:
        self._requests += 1
        return f"{self._label}-{self._requests}"

    def do_one(self, session: bw.Session, expected_step: int | None = None) -> None:
        """Does a step for the next batch, which stays the next when this is refused."""
        batch = self.batches[0]
        result = session.train_step(self.task.batch(batch), expected_step=expected_step, request_id=self.new_id())
        self.steps.append((result.step, batch))
        del self.batches[0]


def _freely(run: _Run, session: bw.Session) -> None:
    while run.batches:
        run.do_one(session)


def _expecting(run: _Run, session: bw.Session) -> None:
    while run.batches:
        try:
            run.do_one(session, session.info().step)
        except bw.StepMismatchError:
            continue


def _leasing(run: _Run, session: bw.Session) -> None:
    while run.batches:
        try:
            with session.attach(holder="one of them", take_over=True, request_id=run.new_id()):
                for _ in run.batches[:HOLD_STEPS]:
                    run.do_one(session)
        except bw.WriterFencedError:
            continue


_MANNERS: dict[str, Callable[[_Run, bw.Session], None]] = {
    "freely": _freely,
    "expecting": _expecting,
    "leasing": _leasing,
}
MANNERS = tuple(_MANNERS)


def _compare(oracle: Oracle, steps: list[Step], found: str, verdict: Verdict) -> None:
    numbers = [number for number, _ in steps]
    for _, batch in steps:
        oracle.train_step(batch)
    expected = oracle.digest()
    oracle.close()
    if numbers != list(range(1, len(steps) + 1)):
        kind = "doubled" if len(set(numbers)) == len(numbers) else "lost"
        verdict.wrong(kind, f"the steps that clients were told of are {numbers}")
    elif found != expected:
        verdict.wrong("differing", f"the state is {found}, not {expected}, after {steps}")
