"""Wherever a connection breaks, every call is applied once, and answered as if it had not."""

from collections.abc import Iterator

import numpy as np
from tests.faults.actor import Actor
from tests.faults.connection_faults import Fault, Way
from tests.faults.oracle import Oracle
from tests.faults.proxy import Proxy
from tests.faults.rounds import Arena, Disturbance, connected, play
from tests.faults.script import Deed, drawn_script
from tests.faults.server import Server
from tests.faults.tasks import TASKS
from tests.faults.verdict import Judge, Verdict

STRIDE = 11
LONGEST = 400
"""Bytes that are more than a small request has, or its answer."""


def judged(arena: Arena, proxy: Proxy, deeds: Iterator[Deed]) -> Verdict:
    """Plays deeds through a proxy until all of its faults have happened."""
    verdict = Verdict()
    with connected(proxy.address) as client:
        oracle = Oracle(arena.undisturbed, TASKS[0])
        judge = Judge(verdict, Actor(client, TASKS[0], "cut"), oracle)
        while not proxy.settled:
            assert judge.do(next(deeds)), verdict.told
        oracle.close()
    return verdict


def steps() -> Iterator[Deed]:
    for number in range(1_000_000):
        yield Deed("train_step", (number,))


def test_a_step_is_applied_once_when_the_connection_is_cut_after_any_byte(arena: Arena) -> None:
    faults = [
        Fault("cut", after, way, reset=after % 2 == 0) for after in range(0, LONGEST, STRIDE) for way in reversed(Way)
    ]
    with Server(arena.launcher, arena.directory) as server:
        server.start()
        with Proxy(server.address, faults) as proxy:
            judged(arena, proxy, steps())


def test_a_step_is_applied_once_when_its_answer_is_lost(arena: Arena) -> None:
    faults = [Fault("lose", number % 3, reset=number % 2 == 0) for number in range(30)]
    with Server(arena.launcher, arena.directory) as server:
        server.start()
        with Proxy(server.address, faults) as proxy:
            judged(arena, proxy, steps())


def test_a_script_comes_out_the_same_over_connections_that_break_and_tarry(arena: Arena) -> None:
    script = drawn_script(np.random.default_rng(7), 25)
    verdict = play(arena, 7, script, Disturbance(faults=("cut", "lose", "delay"), nbytes=1_500))
    assert verdict.told == []
    assert all(verdict.happened[kind] for kind in ("cut", "lose", "delay"))
