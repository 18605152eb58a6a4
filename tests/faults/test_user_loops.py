"""A user's training loop rides through kills and restarts of the server without code of its own."""

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from tests.faults.launchers import ColdLauncher
from tests.faults.oracle import Oracle
from tests.faults.rounds import Arena
from tests.faults.server import Server
from tests.faults.tasks import TASKS, Array

import backwire as bw

BATCHES, KILLED_AT = 24, (5, 6, 15)
TASK = TASKS[1]

Batches = Iterable[dict[str, Array]]
Expected = tuple[list[float], str]


def batches(server: Server, killed_at: tuple[int, ...] = KILLED_AT) -> Iterator[dict[str, Array]]:
    """Yields batches; at some of them the server is killed, and started again while training goes on."""
    for number in range(BATCHES):
        if number in killed_at:
            server.kill()
            restart = threading.Thread(target=server.start)
            restart.start()
            yield TASK.batch(number)
            restart.join()
        else:
            yield TASK.batch(number)


def train_steps(session: bw.Session, batches: Batches) -> list[float]:
    return [session.train_step(batch).loss for batch in batches]


def three_calls(session: bw.Session, batches: Batches) -> list[float]:
    losses = []
    for batch in batches:
        forward = session.forward(batch)
        forward.backward()
        session.step()
        losses.append(float(forward.loss or 0.0))
    return losses


def fit(session: bw.Session, batches: Batches) -> list[float]:
    return [result.loss for result in session.train_steps(batches, depth=4)]


def pipeline(session: bw.Session, batches: Batches) -> list[float]:
    with session.pipeline() as pipe:
        steps = [pipe.train_step(batch) for batch in batches]
    return [step.result().loss for step in steps]


@pytest.fixture
def expected(arena: Arena) -> Iterator[Expected]:
    """The losses and the digest of an undisturbed run."""
    oracle = Oracle(arena.undisturbed, TASK)
    yield train_steps(oracle.session, map(TASK.batch, range(BATCHES))), oracle.digest()
    oracle.close()


@pytest.mark.parametrize("loop", [train_steps, three_calls, fit, pipeline])
def test_a_loop_does_not_notice(
    arena: Arena, expected: Expected, loop: Callable[[bw.Session, Batches], list[float]]
) -> None:
    with Server(arena.launcher, arena.directory) as server:
        server.start()
        with bw.connect(server.address) as client:
            session = client.create_session(TASK.loss, TASK.optimizer, Oracle.SEED)
            assert (loop(session, batches(server)), session.digest()) == expected


def test_a_loop_does_not_notice_either_where_a_server_takes_its_time_to_start(arena: Arena, expected: Expected) -> None:
    launcher = ColdLauncher()
    with Server(launcher, arena.directory) as server:
        server.start()
        with bw.connect(server.address) as client:
            session = client.create_session(TASK.loss, TASK.optimizer, Oracle.SEED)
            assert (train_steps(session, batches(server, killed_at=(9,))), session.digest()) == expected
    launcher.close()
