"""Several clients, one session: each step is applied once, in the order that the clients are told."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.races import MANNERS, race
from tests.faults.rounds import Arena, Disturbance, connected
from tests.faults.server import Server, revived

import backwire as bw

WORKERS, ROUNDS = 3, 4


@pytest.mark.parametrize("manner", MANNERS)
def test_the_state_is_that_of_the_steps_in_the_order_told(arena: Arena, manner: str) -> None:
    how = Disturbance(faults=("cut", "lose"), nbytes=6_000, kill_seconds=0.3, least_kills=1)
    verdict = race(arena, MANNERS.index(manner), how, manner)
    assert verdict.told == []
    assert verdict.happened["kill"] > 1, "and not only at its end"


def test_gradients_of_workers_all_count_once_though_the_server_is_killed(arena: Arena) -> None:
    """The gradient is the sum of what the workers send, in whole numbers, so that no order shows."""
    w = bw.parameter("w", [0.0, 0.0])
    loss = bw.sum(bw.input("x", (2,)) * w)
    barrier = threading.Barrier(WORKERS + 1)

    def work(address: str, session_id: str, number: int) -> None:
        with connected(address) as client:
            session = client.session(session_id)
            for turn in range(ROUNDS):
                session.forward({"x": [10.0**number, turn]}).backward()
                barrier.wait(60)

    with Server(arena.launcher, arena.directory) as server, revived(server):
        with connected(server.address) as client, ThreadPoolExecutor(WORKERS) as pool:
            session = client.create_session(loss, bw.SGD(1.0))
            working = [pool.submit(work, server.address, session.id, number) for number in range(WORKERS)]
            for _ in range(ROUNDS):
                killer = threading.Timer(0.02, server.kill)
                killer.start()
                result = session.step(after_contributions=WORKERS, timeout=50)
                killer.join()
                assert result.contributions == WORKERS
                barrier.wait(60)
            for each in working:
                each.result()
            assert session.info().step == ROUNDS
            moved = session.parameters()["w"].tolist()
        assert moved == [-111.0 * ROUNDS, -float(WORKERS * sum(range(ROUNDS)))]
