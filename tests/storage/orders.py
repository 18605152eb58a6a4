"""Plays races of servers in orders of their system calls, of which those with few changes of turn show most mistakes.

`python -m tests.storage.orders` plays all that begin with one server, go on with another, and then let none, the first
or both come to their end.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.storage.interleaving import ALL, STUCK_SECONDS, Actor, Turn, played
from tests.storage.race_site import Check, Race, Site
from tests.storage.races import RACES

from backwire_server.sessions.errors import SessionError
from backwire_server.sessions.keeping.durable import Durability

MORE = 6
"""How many more calls an actor may make in an order than in those where each has one turn."""

LEVELS = (Durability.JOURNAL, Durability.FSYNC)


def play(race: Race, durability: Durability, order: list[Turn]) -> list[Actor]:
    """Plays a race in an order; raises AssertionError where something does not hold that must."""
    memory = Path("/dev/shm")
    with (
        TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory,
        Site(Path(directory), durability) as site,
    ):
        works, check = race(site)
        with played(works, order) as actors:
            for actor in actors:
                if actor.error is not None and not isinstance(actor.error, SessionError):
                    raise AssertionError(f"order {order}: {actor.error!r}") from actor.error
            try:
                _in_time(check, actors)
            except Exception as error:
                raise AssertionError(f"order {order}: {error!r}; {[actor.error for actor in actors]}") from error
            return actors


def _in_time(check: Check, actors: Sequence[Actor]) -> None:
    """Does what `check` does; that is stuck where a server that was killed holds what this process needs."""
    judge = ThreadPoolExecutor(1)
    try:
        judge.submit(check, actors).result(STUCK_SECONDS)
    finally:
        judge.shutdown(wait=False)


def orders(race: Race, durability: Durability) -> Iterator[list[Turn]]:
    """Yields all orders in which one begins, another goes on, and then none, the first or both come to their end."""
    alone = [play(race, durability, [Turn(first, ALL)])[first].calls for first in range(_actors(race, durability))]
    most = [0 for _ in alone]
    for order in permutations(range(len(alone))):
        found = play(race, durability, [Turn(actor, ALL) for actor in order])
        most = [max(before, actor.calls) for before, actor in zip(most, found, strict=True)]
    for one, other in permutations(range(len(most)), 2):
        for calls in range(most[one] + 1):
            for answered in range(most[other] + MORE):
                for rest in ((), (one,), (one, other)):
                    yield [Turn(one, calls), Turn(other, answered), *(Turn(actor, ALL) for actor in rest)]


def _actors(race: Race, durability: Durability) -> int:
    return len(play(race, durability, []))


def main() -> int:
    """Plays all orders of the races that are named, and tells of those in which something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.storage.orders", description=__doc__)
    parser.add_argument("races", nargs="*", choices=[*RACES, []], help="all unless some are named")
    parser.add_argument("--most", type=int, help="at most so many orders of each, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failed = 0
    for name in options.races or RACES:
        for durability in LEVELS:
            began = time.monotonic()
            chosen = list(orders(RACES[name], durability))
            if options.most is not None and options.most < len(chosen):
                chosen = random.Random(options.seed).sample(chosen, options.most)
            for order in chosen:
                try:
                    play(RACES[name], durability, order)
                except AssertionError as error:
                    failed += 1
                    sys.stdout.write(f"{name}, {durability.value}: {error}\n")
            took = time.monotonic() - began
            sys.stdout.write(
                f"{name}, {durability.value}: {len(chosen)} orders in {took:.0f} s, {failed} failed so far\n"
            )
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
