"""A round: a script played on a server that is disturbed, beside the oracle, and what came out otherwise."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.faults.actor import PATIENT, Actor
from tests.faults.connection_faults import Kind, drawn_faults
from tests.faults.launchers import Launcher
from tests.faults.oracle import Oracle
from tests.faults.proxy import Proxy
from tests.faults.script import Deed
from tests.faults.server import Server, revived
from tests.faults.tasks import TASKS, Task
from tests.faults.verdict import Judge, Verdict

import backwire as bw

CALL_SECONDS = 60.0
LIVES = 5.0
"""So many times as long as it took to start a server lives on average at least, to get on on a slow machine, too."""

LEAST_DEEDS = 20
"""How many deeds a script has at least that ends after a number of kills, however soon these come."""


@dataclass(frozen=True)
class Arena:
    """Where rounds are played.

    Attributes:
        launcher: What starts the servers.
        undisturbed: A client of a server in memory that nothing befalls.
        directory: Has room for the files of a round.
    """

    launcher: Launcher
    undisturbed: bw.Client
    directory: Path


@dataclass(frozen=True)
class Disturbance:
    """What befalls a server while a script is played.

    Attributes:
        durability: How durable the session is.
        faults: What the proxy does to connections, about every `nbytes` of them.
        kill_seconds: After how many seconds on average the server is killed, again and again; None for never.
        failpoints: What each start of the server arms.
        workers: How many processes the server has; where there are several, one of them is killed at a time.
        flags: What the server is told besides.
        least_kills: After how many kills a script ends that goes on for long, when LEAST_DEEDS were done, and a race.
    """

    durability: str = "journal"
    faults: tuple[Kind, ...] = ()
    nbytes: float = 4_000.0
    kill_seconds: float | None = None
    failpoints: tuple[str, ...] = ()
    workers: int = 1
    flags: tuple[str, ...] = ()
    least_kills: int | None = None


def play(arena: Arena, seed: int, script: Iterable[Deed], how: Disturbance, task: Task | None = None) -> Verdict:
    """Plays a script through the disturbance, starts the server once more at its end, and returns what came out.

    The seed chooses the task where none is given.

    Stops at the first thing that is wrong. Raises BackwireError for a call that failed though it should not have.
    """
    draw, verdict, task = np.random.default_rng([seed, 1]), Verdict(), task or TASKS[seed % len(TASKS)]
    with started(arena, how) as server, contextlib.closing(Oracle(arena.undisturbed, task)) as oracle:
        with disturbed(server, draw, how, verdict) as address, connected(address) as client:
            actor = Actor(client, task, f"{seed}")
            judge = Judge(verdict, actor, oracle)
            all(judge.do(deed) for deed in until_over(script, server, how))
        if verdict.good:
            _look_again(server, judge, actor)
    return verdict


def until_over(script: Iterable[Deed], server: Server, how: Disturbance) -> Iterator[Deed]:
    """Yields the deeds of a script, as far as it goes on."""
    for number, deed in enumerate(script):
        if how.least_kills is not None and number >= LEAST_DEEDS and server.deaths >= how.least_kills:
            return
        yield deed


def started(arena: Arena, how: Disturbance) -> Server:
    """Returns the server to disturb, which is yet to be started."""
    return Server(arena.launcher, arena.directory, "--durability", how.durability, *how.flags, workers=how.workers)


def connected(address: str) -> bw.Client:
    """Returns a client that does not give up soon."""
    return bw.connect(address, retry=PATIENT, timeout=CALL_SECONDS)


@contextlib.contextmanager
def disturbed(server: Server, draw: np.random.Generator, how: Disturbance, verdict: Verdict) -> Iterator[str]:
    """Starts the server, and gives the address of a proxy; both fail until the block ends, and the server serves then.

    Counts in the verdict what happened.
    """
    faults = drawn_faults(draw, how.faults, how.nbytes) if how.faults else ()
    with revived(server, how.failpoints), Proxy(server.address, faults, server.kill) as proxy:
        with killing(server, draw, how):
            yield proxy.address
        verdict.happened.update({kind: count for kind, count in proxy.happened.items() if kind != "kill"})
    verdict.happened["kill"] += server.deaths


@contextlib.contextmanager
def killing(server: Server, draw: np.random.Generator, how: Disturbance) -> Iterator[None]:
    """Kills the server, or one of its workers, again and again while the block runs."""
    ending, seconds = threading.Event(), how.kill_seconds

    def has_ended(seconds: float) -> bool:
        return ending.wait(float(draw.exponential(max(seconds, LIVES * server.start_seconds))))

    def kill() -> None:
        while seconds is not None and not has_ended(seconds):
            if how.workers == 1:
                server.kill()
            else:
                server.kill_worker(int(draw.integers(how.workers)))

    killer = threading.Thread(target=kill, name="killer")
    killer.start()
    try:
        yield
    finally:
        ending.set()
        killer.join()


def _look_again(server: Server, judge: Judge, actor: Actor) -> None:
    """Compares after the last start of the server, over another connection, and deletes the session."""
    with connected(server.address) as client:
        actor.session = client.session(actor.session.id)
        judge.compare("the last start")
        actor.close()
        left = [each.id for each in client.sessions()]
        assert not left, f"sessions that were deleted are there: {left}"
