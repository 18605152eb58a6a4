"""A soak: a server, clients that do all to it that clients do, and what came out."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tests.faults.actor import PATIENT
from tests.faults.launchers import Launcher, Process
from tests.faults.server import Server
from tests.soak.board import CALLS, GOOD, HAPPENINGS, KILLED, REFUSALS, STORIES, Board
from tests.soak.clients import Clients, Crew, new_ending
from tests.soak.memory import Curve, Holding, holding
from tests.soak.plan import MOST_PIPED

import backwire as bw
from backwire._info import Durability

SAMPLE_SECONDS = 0.25
SETTLE_SECONDS = 15.0
DRAIN_SECONDS = 20.0
GRACE = "300s"
REPORT = 100_000
"""After how many calls it is told how far it is."""
"""Longer than DRAIN_SECONDS, so that a call that is left in progress shows."""


@dataclass(frozen=True)
class Size:
    """How long and how much.

    Attributes:
        seconds: After how many it ends in any case.
        calls: After how many calls it ends, once a client was killed and all has happened that does; None for as many
            as those seconds allow.
        places: The most calls at a time; with fewer than clients, calls are refused and come again.
        most_piped: The most batches that a pipeline trains on.
    """

    seconds: float
    calls: int | None = None
    sessions: int = 32
    clients: int = 6
    workers: int = 1
    durability: Durability = "journal"
    seed: int = 0
    kill_seconds: float = 4.0
    places: int | None = None
    most_piped: int = MOST_PIPED


@dataclass
class Outcome:
    """What came out: counts by name, memory, and what was wrong."""

    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    curve: Curve = field(default_factory=Curve)
    before: Holding | None = None
    after: Holding | None = None
    wrong: list[str] = field(default_factory=list)


class SoakedServer(Server):
    """A server whose processes are looked at, and which is asked to end."""

    @property
    def process(self) -> Process:
        """Its first process."""
        assert self._process is not None, "it does not run"
        return self._process

    def drains(self) -> bool:
        """Asks it to end, and tells whether it does before the calls in progress are cut off."""
        signal.pidfd_send_signal(self.process.descriptor, signal.SIGTERM)
        return self.process.has_ended(DRAIN_SECONDS)


def soak(launcher: Launcher, directory: Path, size: Size) -> Outcome:
    """Soaks a server with files in the directory, and judges it."""
    out, board = Outcome(), Board(size.clients)
    flags: tuple[str, ...] = ("--durability", size.durability, "--grace", GRACE)
    if size.places is not None:
        flags += ("--max-concurrent-calls", str(size.places), "--max-concurrent-pipelines", str(size.places))
    with _started(launcher, directory / "soaked", size.workers, flags) as server:
        with _started(launcher, directory / "quiet", 1, ()) as quiet:
            crew = _crew(size, server.address, quiet.address, directory, board)
            with bw.connect(server.address, retry=PATIENT) as client:
                out.before = _looked_at(server, client)
                _run(crew, size, server, out)
                _judge_rest(out, server, client)
        if not server.drains():
            out.wrong.append(f"the server did not end in {DRAIN_SECONDS:.0f} s: calls are in progress")
        if "Traceback" in server.log:
            out.wrong.append(f"the server logged a traceback, the end of which is\n{server.log[-2000:]}")
    out.counts |= board.totals((CALLS, GOOD, STORIES, *HAPPENINGS))
    out.refusals = board.totals(REFUSALS)
    out.wrong += [path.read_text() for path in sorted(directory.glob("*.wrong"))]
    return out


@contextlib.contextmanager
def _started(launcher: Launcher, directory: Path, workers: int, flags: tuple[str, ...]) -> Iterator[SoakedServer]:
    directory.mkdir()
    with SoakedServer(launcher, directory, *flags, workers=workers) as server:
        server.start()
        yield server


def _crew(size: Size, address: str, quiet: str, directory: Path, board: Board) -> Crew:
    slots = -(-size.sessions // size.clients)
    return Crew(address, quiet, directory, board, new_ending(), size.seed, slots, size.durability, size.most_piped)


def _run(crew: Crew, size: Size, server: SoakedServer, out: Outcome) -> None:
    draw, began, told = np.random.default_rng([size.seed, os.getpid()]), time.monotonic(), 0
    with Clients(crew, size.clients) as clients:
        next_kill = began + float(draw.exponential(size.kill_seconds))
        while (now := time.monotonic()) < began + size.seconds:
            calls = crew.board.total(CALLS)
            happened = clients.kills and all(map(crew.board.total, HAPPENINGS))
            if size.calls is not None and calls >= size.calls and happened:
                break
            out.curve.add(calls, holding(server.process).resident)
            if calls // REPORT > told:
                told = calls // REPORT
                sys.stderr.write(f"{calls:,} calls, {out.curve.resident[-1]:.0f} MB resident\n")
            if now > next_kill:
                clients.kill(draw)
                next_kill = now + float(draw.exponential(size.kill_seconds))
            time.sleep(SAMPLE_SECONDS)
    out.counts[KILLED] = clients.kills
    out.seconds = time.monotonic() - began


def _looked_at(server: SoakedServer, client: bw.Client) -> Holding:
    assert not list(client.sessions()), "a new server has sessions"
    return holding(server.process)


def _judge_rest(out: Outcome, server: SoakedServer, client: bw.Client) -> None:
    """Waits for what clients have left behind to go: sessions, and the descriptors of connections."""
    assert out.before is not None, "it was looked at before"
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        left = [each.id for each in client.sessions()]
        out.after = holding(server.process)
        if (not left and out.after.descriptors <= out.before.descriptors) or time.monotonic() > until:
            break
        time.sleep(SAMPLE_SECONDS)
    if left:
        out.wrong.append(f"sessions are left that nobody has: {left}")
    if out.after.descriptors > out.before.descriptors:
        out.wrong.append(f"the server has {out.after.descriptors} descriptors, not {out.before.descriptors} as before")
