"""Kills replicas over one directory at random while sessions train: `python -m tests.cluster --kills 1000`.

Where Ray is installed, it goes on with workers that Ray runs on three nodes, and starts again. With `--stop`, they are
stopped instead and go on later, as a machine that vanishes says nothing.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from tests.cluster import ray_site
from tests.cluster.site import Site, serving, unfollowing
from tests.trainees import WAYS, Trainee, create

import backwire as bw

REPORT = 50
"""After how many kills it is told how far it is."""

BEGUN = 2
"""How many steps may be on their way when a replica is killed, so that the one after them tells that it goes on."""


@dataclass(frozen=True, slots=True)
class Failover:
    """The seconds from the kill of a session's owner until it goes on.

    Attributes:
        next_step: Until the next step is acknowledged which the owner had not acknowledged yet.
        third_step: Until the third step after the kill is, of which two may have been on their way.
        follows: Whether its client goes to owners itself.
    """

    next_step: float
    third_step: float
    follows: bool


def main() -> int:
    """Prints what became of the sessions, and returns 1 when any of them is not as if nothing had happened.

    A step that is lost or made twice ends it at once, since each must follow the one before.
    """
    options = _parser().parse_args()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name, serving(Path(name), machines=options.machines) as site:
        wrong = _report("replicas", options, *run(site, options.kills, options, end))
    if options.ray_kills and find_spec("ray") is not None:
        with tempfile.TemporaryDirectory() as name, ray_site.serving(Path(name)) as workers:
            wrong += _report("workers on Ray", options, *run(workers, options.ray_kills, options, end))
    return 1 if wrong else 0


def _report(kind: str, options: argparse.Namespace, found: list[Failover], steps: int, differing: int) -> int:
    kept = f"{options.sessions} sessions, {steps:,} steps: 0 lost, 0 doubled, {differing} differing"
    sys.stdout.write(f"{kind}: {len(found):,} {'stops' if options.stop else 'kills'}, {kept}; {_told(found)}\n")
    for follows, clients in ((True, "clients that go to owners"), (False, "clients whose calls are forwarded")):
        if some := [each for each in found if each.follows is follows]:
            sys.stdout.write(f"  {clients}: {len(some):,}; {_told(some)}\n")
    return differing


def run(
    site: Site | ray_site.RaySite, kills: int, options: argparse.Namespace, end: float
) -> tuple[list[Failover], int, int]:
    """Returns how long a session of each killed replica was without a step, all steps, and how many digests differ."""
    draw = random.Random(options.seed)
    found: list[Failover] = []
    with ExitStack() as stack:
        undisturbed = stack.enter_context(bw.connect("embedded"))
        spared, target = _spared(site) if options.stop else ("", site.target)
        clients = [stack.enter_context(connect(target)) for connect in (bw.connect, unfollowing)]
        trainees = [
            stack.enter_context(Trainee(create(clients[number // 2 % 2], number), WAYS[number % 2], number))
            for number in range(options.sessions)
        ]
        for _ in range(kills):
            for each in trainees:
                each.goes_on()
            number = draw.randrange(len(trainees))
            if site.owner(trainees[number].session.id) == spared:
                trainees[number].session.move(draw.choice([name for name in site.replicas if name != spared]))
                trainees[number].goes_on()
            found.append(_failover(site, trainees[number], follows=number // 2 % 2 == 0, stop=options.stop))
            if len(found) % REPORT == 0:
                sys.stderr.write(f"{len(found):,} kills; {_told(found)}\n")
            if time.monotonic() > end:
                break
        results = [each.result() for each in trainees]
        differing = sum(each.expected(undisturbed) != result for each, result in zip(trainees, results, strict=True))
    return found, sum(steps for steps, _ in results), differing


def _spared(site: Site | ray_site.RaySite) -> tuple[str, str]:
    """Returns a replica that is not stopped, none on Ray, and where clients call: a balancer may wait for hours."""
    if isinstance(site, ray_site.RaySite):
        return "", site.target
    name, replica = next(iter(site.replicas.items()))
    return name, replica.address


def _failover(site: Site | ray_site.RaySite, trainee: Trainee, *, follows: bool, stop: bool) -> Failover:
    """Kills the owner of a session, or has it `stop`, and starts it again when the session goes on.

    Steps that were answered before the kill may be noted after it, so the next is the one after the longest pause.
    """
    victim = site.replicas[site.owner(trainee.session.id)]
    killed = victim.pause() if stop else victim.kill()
    trainee.goes_on(BEGUN + 1)
    after = [each - killed for each in list(trainee.times) if each > killed]
    _, next_step = max(pairwise([0.0, *after]), key=lambda pair: pair[1] - pair[0])
    found = Failover(next_step, after[BEGUN], follows)
    if stop:
        victim.resume()
    else:
        victim.start()
    return found


def _told(found: Sequence[Failover]) -> str:
    next_steps, third_steps = [each.next_step for each in found], [each.third_step for each in found]
    return f"failover: next step {_figures(next_steps)}, third step {_figures(third_steps)}"


def _figures(seconds: Sequence[float]) -> str:
    return f"after {statistics.median(seconds):.2f} s at the median and {max(seconds):.2f} s at the longest"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many replicas to kill, one after another")
    parser.add_argument("--ray-kills", type=int, default=5, help="how many workers that Ray runs to kill after that")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="after how many it ends in any case")
    parser.add_argument("--sessions", type=int, default=8, help="how many sessions train meanwhile")
    parser.add_argument(
        "--machines", action="store_true", help="as if each replica were on a machine of its own; needs root"
    )
    parser.add_argument(
        "--stop",
        action="store_true",
        help="stop replicas (SIGSTOP) instead of killing them, so that no connection breaks",
    )
    parser.add_argument("--seed", type=int, default=1, help="which replicas are killed follows from it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
