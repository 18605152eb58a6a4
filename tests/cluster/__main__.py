"""Kills replicas over one directory at random while sessions train: `python -m tests.cluster --kills 1000`."""

import argparse
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.cluster.site import Site, serving
from tests.trainees import WAYS, Trainee, create

import backwire as bw


def main() -> int:
    """Prints what became of the sessions, and returns 1 when any of them is not as if nothing had happened."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as site:
        seconds, differing = run(site, options.kills, options.sessions, options.seed)
    middle = f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"
    sys.stdout.write(f"{options.kills} kills, {options.sessions} sessions, {differing} differing; failover: {middle}\n")
    return 1 if differing else 0


def run(site: Site, kills: int, sessions: int, seed: int) -> tuple[list[float], int]:
    """Returns how long a session of each killed replica was without a step, and how many digests differ."""
    draw, seconds = random.Random(seed), []
    with ExitStack() as stack:
        client, undisturbed = stack.enter_context(bw.connect(site.target)), stack.enter_context(bw.connect("embedded"))
        trainees = [
            stack.enter_context(Trainee(create(client, number), WAYS[number % len(WAYS)], number))
            for number in range(sessions)
        ]
        for _ in range(kills):
            for each in trainees:
                each.goes_on()
            seconds.append(_failover(site, draw.choice(trainees)))
        results = [each.result() for each in trainees]
        differing = sum(each.expected(undisturbed) != result for each, result in zip(trainees, results, strict=True))
    return seconds, differing


def _failover(site: Site, trainee: Trainee) -> float:
    """Kills the owner of a session and starts it again; returns the time until the session's next steps are done."""
    victim = site.replicas[site.owner(trainee.session.id)]
    victim.kill()
    began = time.monotonic()
    trainee.goes_on()
    seconds = time.monotonic() - began
    victim.start()
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many replicas to kill, one after another")
    parser.add_argument("--sessions", type=int, default=6, help="how many sessions train meanwhile")
    parser.add_argument("--seed", type=int, default=1, help="which replicas are killed follows from it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
