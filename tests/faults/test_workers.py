"""Where several processes share the sessions, one of them may be killed, or all."""

from functools import partial

import pytest
from tests.faults.actor import Actor
from tests.faults.oracle import Oracle
from tests.faults.rounds import Arena, Disturbance, connected, started
from tests.faults.script import Deed
from tests.faults.tasks import TASKS
from tests.faults.verdict import Judge, Verdict

import backwire as bw

SESSIONS = 4
TASK = TASKS[1]


def test_sessions_come_back_through_the_same_address(arena: Arena) -> None:
    verdict = Verdict()
    with started(arena, Disturbance(workers=2)) as server:
        server.start()
        with connected(server.address) as client:
            actors = [Actor(client, TASK, f"w{number}") for number in range(SESSIONS)]
            oracles = [Oracle(arena.undisturbed, actor.task) for actor in actors]
            judges = [Judge(verdict, actor, oracle) for actor, oracle in zip(actors, oracles, strict=True)]
            forgotten = [Actor(client, TASK, f"m{number}", "memory") for number in range(2)]
            addresses = {actor.session.info().address for actor in actors + forgotten}
            assert len(addresses) == 2, "both processes have sessions"
            for kill in (partial(server.kill_worker, 0), server.kill):
                for number, judge in enumerate(judges):
                    judge.do(Deed("pipe_steps", ([number, number + 1], 2)))
                kill()
                if server.died:
                    server.start()
                for number, judge in enumerate(judges):
                    judge.compare("a kill")
                    judge.do(Deed("train_step", (number,)))
            for actor in forgotten:
                with pytest.raises(bw.SessionNotFoundError):
                    actor.train_step(1)
            for oracle in oracles:
                oracle.close()
    assert verdict.told == []
