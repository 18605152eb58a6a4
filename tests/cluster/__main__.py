"""Kills replicas over one directory at random while sessions train: `python -m tests.cluster --kills 1000`."""

import argparse
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.cluster.site import Site, serving, unfollowing
from tests.trainees import WAYS, Trainee, create

import backwire as bw

REPORT = 50
"""After how many kills it is told how far it is."""

BEGUN = 2
"""How many steps may be on their way when a replica is killed, so that the one after them tells that it goes on."""


def main() -> int:
    """Prints what became of the sessions, and returns 1 when any of them is not as if nothing had happened.

    A step that is lost or made twice ends it at once, since each must follow the one before.
    """
    options = _parser().parse_args()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as site:
        seconds, steps, differing = run(site, options.kills, options.sessions, options.seed, end)
    kept = f"{options.sessions} sessions, {steps:,} steps: 0 lost, 0 doubled, {differing} differing"
    sys.stdout.write(f"{len(seconds):,} kills, {kept}; {_told(seconds)}\n")
    return 1 if differing else 0


def run(site: Site, kills: int, sessions: int, seed: int, end: float) -> tuple[list[float], int, int]:
    """Returns how long a session of each killed replica was without a step, all steps, and how many digests differ."""
    draw = random.Random(seed)
    seconds: list[float] = []
    with ExitStack() as stack:
        undisturbed = stack.enter_context(bw.connect("embedded"))
        clients = [stack.enter_context(connect(site.target)) for connect in (bw.connect, unfollowing)]
        trainees = [
            stack.enter_context(Trainee(create(clients[number // 2 % 2], number), WAYS[number % 2], number))
            for number in range(sessions)
        ]
        for _ in range(kills):
            for each in trainees:
                each.goes_on()
            seconds.append(_failover(site, draw.choice(trainees)))
            if len(seconds) % REPORT == 0:
                sys.stderr.write(f"{len(seconds):,} kills; {_told(seconds)}\n")
            if time.monotonic() > end:
                break
        results = [each.result() for each in trainees]
        differing = sum(each.expected(undisturbed) != result for each, result in zip(trainees, results, strict=True))
    return seconds, sum(steps for steps, _ in results), differing


def _failover(site: Site, trainee: Trainee) -> float:
    """Kills the owner of a session and starts it again; returns the time until a step is done that came after."""
    victim = site.replicas[site.owner(trainee.session.id)]
    victim.kill()
    began = time.monotonic()
    trainee.goes_on(BEGUN + 1)
    seconds = time.monotonic() - began
    victim.start()
    return seconds


def _told(seconds: list[float]) -> str:
    return f"failover: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many replicas to kill, one after another")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="after how many it ends in any case")
    parser.add_argument("--sessions", type=int, default=8, help="how many sessions train meanwhile")
    parser.add_argument("--seed", type=int, default=1, help="which replicas are killed follows from it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
