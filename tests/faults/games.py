"""The kinds of rounds that `python -m tests.faults` plays, each drawn from a seed."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np
from tests.faults.actor import Actor
from tests.faults.connection_faults import Kind
from tests.faults.mixed_script import mixed_script
from tests.faults.oracle import Oracle
from tests.faults.races import MANNERS, race
from tests.faults.replicas import play_on_replicas
from tests.faults.rounds import Arena, Disturbance, connected, play
from tests.faults.script import Deed, drawn_script
from tests.faults.server import Server
from tests.faults.tasks import TASKS, Task, mixed_task
from tests.faults.verdict import Judge, Verdict

from backwire._info import Executor
from backwire_server.storage import failpoints

Game = Callable[[Arena, int], Verdict]

DEEDS = 25
KILL_SECONDS = 0.15
JAX_KILL_SECONDS = 30.0
MIXED_KILL_SECONDS = 1.5
JAX_SHARE = 0.15
FORGETFUL = ("--hibernate-after", "20ms", "--max-awake-sessions", "1", "--max-helpers", "1")
LEVELS = ("journal", "fsync")
ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT")


def kills(arena: Arena, seed: int) -> Verdict:
    """The server is killed at random moments."""
    return _played(arena, seed, Disturbance(_level(seed), kill_seconds=KILL_SECONDS))


def kills_at_bytes(arena: Arena, seed: int) -> Verdict:
    """The server is killed after a byte of a request or of an answer."""
    return _played(arena, seed, Disturbance(_level(seed), ("kill",), nbytes=2_000.0))


def cuts(arena: Arena, seed: int) -> Verdict:
    """Connections are cut, answers are lost, and bytes come late."""
    return _played(arena, seed, Disturbance(_level(seed), ("cut", "lose", "delay"), nbytes=2_000.0))


def everything(arena: Arena, seed: int) -> Verdict:
    """All of these at once."""
    kinds: tuple[Kind, ...] = ("cut", "lose", "delay", "kill")
    return _played(arena, seed, Disturbance(_level(seed), kinds, kill_seconds=2 * KILL_SECONDS))


def kills_at_failpoints(arena: Arena, seed: int) -> Verdict:
    """The server kills itself at one place in its code that handles files, and after a restart at another."""
    draw = np.random.default_rng([seed, 3])
    armed = tuple(f"{draw.choice(failpoints.NAMES)}=kill@{draw.geometric(0.3)}" for _ in range(8))
    return _played(arena, seed, Disturbance("fsync", failpoints=armed))


def disk_errors(arena: Arena, seed: int) -> Verdict:
    """The disk is full or fails for a moment."""
    draw = np.random.default_rng([seed, 4])
    armed = f"{draw.choice(failpoints.NAMES)}={draw.choice(ERRORS)}@{draw.geometric(0.3)}"
    script = [deed for deed in _script(seed) if not deed.piped]
    return play(arena, seed, script, Disturbance("fsync", failpoints=(armed,)))


def racing_clients(arena: Arena, seed: int) -> Verdict:
    """Several clients train one session, and the server is killed."""
    how = Disturbance(_level(seed), kill_seconds=KILL_SECONDS)
    return race(arena, seed, how, MANNERS[seed % len(MANNERS)], clients=2 + seed % 2)


def killed_workers(arena: Arena, seed: int) -> Verdict:
    """Of two processes that share the sessions now one and now the other is killed."""
    return _played(arena, seed, Disturbance(_level(seed), kill_seconds=1.0, workers=2))


def forgotten_sessions(arena: Arena, seed: int) -> Verdict:
    """A session that is kept in memory alone is gone after a kill, as is told, and its server serves others."""
    verdict, task = Verdict(), TASKS[seed % len(TASKS)]
    deeds = [deed for deed in _script(seed) if deed.name in ("train_step", "fit", "pipe_steps", "forward")]
    with Server(arena.launcher, arena.directory) as server:
        server.start()
        with connected(server.address) as client:
            for label in (f"{seed}-first", f"{seed}-second"):
                actor, oracle = Actor(client, task, label, "memory"), Oracle(arena.undisturbed, task)
                judge = Judge(verdict, actor, oracle)
                all(judge.do(deed) for deed in deeds)
                oracle.close()
                server.kill()
                server.start()
                answer = Deed("train_step", (1,)).play(actor)
                if answer != ("SessionNotFoundError",):
                    verdict.wrong("differing", f"a session in memory was answered {answer} after a kill")
    verdict.happened["kill"] += server.deaths
    return verdict


def mixtures(arena: Arena, seed: int) -> Verdict:
    """All features of a session at once, on a server that forgets what it has in memory, and is killed."""
    task, script, pace = _mixed(seed)
    return play(arena, seed, script, Disturbance(_level(seed), kill_seconds=pace, flags=FORGETFUL), task)


def replicas(arena: Arena, seed: int) -> Verdict:
    """The same on replicas that share a directory, of whom now one and now another is killed or stalls."""
    task, script, pace = _mixed(seed)
    flags = ("--durability", _level(seed), *FORGETFUL)
    return play_on_replicas(arena, seed, script, task, pace, *flags)


GAMES: Mapping[Game, float] = {
    kills: 6,
    kills_at_bytes: 4,
    cuts: 4,
    everything: 3,
    kills_at_failpoints: 4,
    disk_errors: 1,
    racing_clients: 3,
    killed_workers: 0.15,
    forgotten_sessions: 0.3,
    mixtures: 2,
    replicas: 0.5,
}
"""All of them, and how often each is played."""


def drawn_game(seed: int) -> Game:
    """Returns the game of a seed."""
    shares = np.array(list(GAMES.values()))
    return list(GAMES)[np.random.default_rng([seed, 5]).choice(len(shares), p=shares / shares.sum())]


def _played(arena: Arena, seed: int, how: Disturbance) -> Verdict:
    return play(arena, seed, _script(seed), how)


def _script(seed: int) -> list[Deed]:
    return list(drawn_script(np.random.default_rng([seed, 6]), DEEDS))


def _mixed(seed: int) -> tuple[Task, list[Deed], float]:
    """Returns a task, a script, and after how many seconds a server is killed, which JAX takes to compile."""
    draw = np.random.default_rng([seed, 9])
    executor: Executor = "jax" if find_spec("jax") is not None and draw.random() < JAX_SHARE else "numpy"
    task, pace = mixed_task(draw, executor), JAX_KILL_SECONDS if executor == "jax" else MIXED_KILL_SECONDS
    return task, list(mixed_script(draw, DEEDS)), pace


def _level(seed: int) -> str:
    return LEVELS[seed // 2 % 2]
