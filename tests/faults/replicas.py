"""A round over several replicas that share a directory: killed, stalled and given the session in turns."""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from tests.faults.actor import PATIENT, Actor
from tests.faults.oracle import Oracle
from tests.faults.rounds import CALL_SECONDS, LIVES, Arena, connected
from tests.faults.script import Deed
from tests.faults.server import Server, revived
from tests.faults.tasks import Task
from tests.faults.verdict import Judge, Verdict

import backwire as bw
from backwire._wire._channel import open_channel
from backwire._wire._transport import Transport

NAMES = ("a", "b")
LEASE_SECONDS = 0.4
STALL_SECONDS = 2 * LEASE_SECONDS
STALLS = 0.1  # of all that befalls a replica; a client that went there itself waits long for its connection to break


def play_on_replicas(
    arena: Arena, seed: int, script: Iterable[Deed], task: Task, kill_seconds: float | None, *flags: str
) -> Verdict:
    """Plays a script on replicas with these flags, each call at any of them, and returns what came out."""
    draw, verdict = np.random.default_rng([seed, 7]), Verdict()
    with contextlib.ExitStack() as stack:
        oracle = stack.enter_context(contextlib.closing(Oracle(arena.undisturbed, task)))
        servers = {name: _replica(arena, name, flags) for name in NAMES}
        for server in servers.values():
            stack.enter_context(revived(stack.enter_context(server)))
        clients = [stack.enter_context(way(each.address)) for each in servers.values() for way in (connected, _others)]
        actor = Actor(clients[0], task, f"{seed}")
        judge = Judge(verdict, actor, oracle)
        with _befalling(servers, np.random.default_rng([seed, 8]), kill_seconds):
            for deed in script:
                actor.client = clients[draw.integers(len(clients))]
                actor.session = actor.client.session(actor.session.id)
                if draw.random() < 0.15:
                    _give(actor, str(draw.choice(NAMES)))
                if not judge.do(deed):
                    break
        verdict.happened["kill"] += sum(server.deaths for server in servers.values())
        if verdict.good:
            judge.compare("all of it")
            actor.close()
    return verdict


def _replica(arena: Arena, name: str, flags: Iterable[str]) -> Server:
    directory = arena.directory / name
    directory.mkdir()
    shared = ("--shared", "--data-dir", str(arena.directory / "data"), "--lease", f"{LEASE_SECONDS}s")
    return Server(arena.launcher, directory, *shared, "--replica", name, *flags, kept=False)


def _others(address: str) -> bw.Client:
    """Returns a client as other languages have it, which does not go to owners itself."""
    channel = open_channel(address, token=None, tls=None)
    return bw.Client(Transport(channel, token=None, timeout=CALL_SECONDS, retry=PATIENT))


def _give(actor: Actor, name: str) -> None:
    with contextlib.suppress(bw.InvalidRequestError):  # it was killed, and is not there again
        actor.session.move(name)


@contextlib.contextmanager
def _befalling(servers: Mapping[str, Server], draw: np.random.Generator, kill_seconds: float | None) -> Iterator[None]:
    """Kills or stalls one of them again and again while the block runs."""
    ending = threading.Event()

    def has_ended(seconds: float) -> bool:
        started = max(server.start_seconds for server in servers.values())
        return ending.wait(float(draw.exponential(max(seconds, LIVES * started))))

    def befall() -> None:
        while kill_seconds is not None and not has_ended(kill_seconds):
            server = servers[str(draw.choice(list(servers)))]
            if draw.random() < STALLS:
                server.stall(STALL_SECONDS)
            else:
                server.kill()

    fate = threading.Thread(target=befall, name="fate")
    fate.start()
    try:
        yield
    finally:
        ending.set()
        fate.join()
