"""Plays rounds of training on servers that are killed, cut off and starved of disk: `make faults`.

Each round trains a session by a script drawn from a seed, while the server and its connections fail, and compares its
state and all answers with those of an undisturbed server, bit by bit. `--seed` and `--rounds 1` play one of them again;
the moments of kills are others then, but for those at bytes and failpoints. `--game mixtures` and `--game replicas` mix
all features of a session, on one server and on several that share a directory.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.faults.actor import PATIENT
from tests.faults.games import GAMES, Game, drawn_game
from tests.faults.launchers import WarmLauncher
from tests.faults.rounds import Arena
from tests.faults.server import Server
from tests.faults.verdict import Verdict

import backwire as bw

ROUNDS = 5_000
PROGRESS_SECONDS = 10.0
TITLES = {"kill": "kills", "cut": "connections cut", "lose": "answers lost", "delay": "delays"}


def main() -> int:
    """Plays the rounds, prints a table and writes it as JSON; returns 1 if anything was lost, doubled or differs."""
    options = _options()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its notes on connections that break are no news here
    total, games = Verdict(), dict.fromkeys((game.__name__ for game in GAMES), 0)
    began = told = time.monotonic()
    with _arena(options.directory) as arena:
        for seed in range(options.seed, options.seed + options.rounds):
            game = options.game or drawn_game(seed)
            total.add(_round(arena, game, seed))
            games[game.__name__] += 1
            if time.monotonic() - told > PROGRESS_SECONDS or seed == options.seed + options.rounds - 1:
                told = time.monotonic()
                sys.stderr.write(f"{sum(games.values()):>6} rounds in {told - began:.0f} s: {_counts(total)}\n")
    _write(options.output, total, games, time.monotonic() - began)
    sys.stdout.write(_table(total, games) + f"written to {options.output}\n")
    return 0 if total.good else 1


def _round(arena: Arena, game: Game, seed: int) -> Verdict:
    """Plays a round in a directory of its own, which stays when something was wrong."""
    directory = arena.directory / f"{seed}"
    directory.mkdir()
    try:
        verdict = game(Arena(arena.launcher, arena.undisturbed, directory), seed)
    except Exception:
        verdict = Verdict()
        verdict.wrong("differing", f"the round failed\n{traceback.format_exc()}")
    if verdict.good:
        shutil.rmtree(directory)
    for each in verdict.told:
        repeat = f"python -m tests.faults --rounds 1 --game {game.__name__} --seed {seed}"
        sys.stderr.write(f"{game.__name__}, {each}\n  again: {repeat}\n  files: {directory}\n")
    return verdict


@contextlib.contextmanager
def _arena(parent: Path | None) -> Iterator[Arena]:
    launcher, directory = WarmLauncher(), Path(tempfile.mkdtemp(prefix="backwire-faults-", dir=parent))
    quiet = directory / "undisturbed"
    quiet.mkdir()
    try:
        with Server(launcher, quiet, kept=False) as server:
            server.start()
            with bw.connect(server.address, retry=PATIENT) as client:
                yield Arena(launcher, client, directory)
    finally:
        launcher.close()
        shutil.rmtree(quiet)
        with contextlib.suppress(OSError):  # rounds that went wrong have left something
            directory.rmdir()


def _counts(total: Verdict) -> str:
    happened = [f"{total.happened[kind]} {title}" for kind, title in TITLES.items()]
    return ", ".join([*happened, f"{total.lost} lost, {total.doubled} doubled, {total.differing} differing"])


def _table(total: Verdict, games: dict[str, int]) -> str:
    rows = {"rounds": sum(games.values())}
    rows |= {f"  {name.replace('_', ' ')}": count for name, count in games.items()}
    rows |= {title: total.happened[kind] for kind, title in TITLES.items()}
    rows |= {"lost": total.lost, "doubled": total.doubled, "differing": total.differing}
    return "".join(f"{name:<32}{count:>9,}\n" for name, count in rows.items())


def _write(path: Path, total: Verdict, games: dict[str, int], seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "rounds": sum(games.values()),
        "seconds": round(seconds, 1),
        "games": games,
        "happened": {TITLES[kind]: total.happened[kind] for kind in TITLES},
        "lost": total.lost,
        "doubled": total.doubled,
        "differing": total.differing,
        "told": total.told,
    }
    path.write_text(json.dumps(found, indent=2) + "\n")


def _options() -> argparse.Namespace:
    by_name = {game.__name__: game for game in GAMES}
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="that of the first; each has the next (default: 0)")
    parser.add_argument("--game", choices=by_name, help="one kind of rounds alone (default: as the seeds say)")
    parser.add_argument("--directory", type=Path, help="where servers keep their files (default: where others do)")
    parser.add_argument("--output", type=Path, default=Path("out/faults.json"), help="(default: %(default)s)")
    options = parser.parse_args()
    options.game = by_name.get(options.game)
    return options


if __name__ == "__main__":
    sys.exit(main())
