"""Soaks a server: clients train, cancel, retry, disconnect and are killed, for as long as one likes: `make soak`.

Every session is compared with a twin that nothing befell, and at the end nothing may be left of any of them. `--story`
plays one again, alone; its troubles come at other moments of the server then.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.faults.actor import PATIENT
from tests.faults.launchers import WarmLauncher
from tests.faults.server import Server
from tests.soak.board import CALLS, GOOD, Board
from tests.soak.memory import PER_CALLS
from tests.soak.notebook import Note, Notebook
from tests.soak.plan import MOST_PIPED
from tests.soak.player import Player, Stage
from tests.soak.soak import Outcome, Size, soak

import backwire as bw

MOST_SLOPE_MB = 1.0


def main() -> int:
    """Soaks, prints a table and writes it as JSON; returns 1 if anything was wrong."""
    options = _options()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # that connections break is no news here
    launcher, directory = WarmLauncher(), Path(tempfile.mkdtemp(prefix="backwire-soak-"))
    try:
        if options.story:
            _again(launcher, directory, options)
            return 0
        size = Size(
            options.minutes * 60,
            options.calls,
            options.sessions,
            options.clients,
            options.workers,
            options.durability,
            options.seed,
            places=options.places,
            most_piped=options.piped,
        )
        out = soak(launcher, directory, size)
    finally:
        launcher.close()
    _judge_slope(out, options.most_slope_mb)
    found = _found(out, size)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(_table(out) + f"written to {options.output}\n")
    for each in out.wrong:
        sys.stderr.write(f"{each}\n")
    if out.wrong:
        sys.stderr.write(f"files: {directory}\n")
        return 1
    shutil.rmtree(directory)
    return 0


def _again(launcher: WarmLauncher, directory: Path, options: argparse.Namespace) -> None:
    """Plays one story on a server that has no other; raises ViolationError."""
    seed, client, slot, number = map(int, options.story.split("-"))
    (directory / "soaked").mkdir()
    with Server(launcher, directory / "soaked", workers=options.workers) as server:
        server.start()
        with bw.connect(server.address, retry=PATIENT) as there, bw.connect("embedded") as quiet:
            notebook = Notebook(directory / "note")
            notebook.write(Note(number))
            board = Board(client + 1)
            stage = Stage(server.address, there, quiet, board, options.durability, options.piped)
            player = Player(stage, notebook, seed, client, slot)
            while notebook.last.number == number:
                player.advance()
    shutil.rmtree(directory)
    sys.stdout.write(f"{options.story}: {board.total(CALLS)} calls, and the session is as its twin\n")


def _judge_slope(out: Outcome, most: float) -> None:
    slope = out.curve.slope
    if slope is not None and slope > most:
        out.wrong.append(f"resident memory per {PER_CALLS:,} calls rises by {slope:.2f} MB; {most} MB are allowed")


def _found(out: Outcome, size: Size) -> dict[str, object]:
    return {
        "size": asdict(size),
        "seconds": round(out.seconds, 1),
        "counts": out.counts,
        "goodput": round(out.counts[GOOD] / out.seconds, 1),
        "refusals": out.refusals,
        "slope_mb": out.curve.slope,
        "before": out.before and asdict(out.before),
        "after": out.after and asdict(out.after),
        "curve": asdict(out.curve),
        "wrong": out.wrong,
    }


def _table(out: Outcome) -> str:
    rows: dict[str, float] = {
        "seconds": out.seconds,
        **out.counts,
        "good calls per second": out.counts[GOOD] / out.seconds,
    }
    rows |= {f"refused: {reason}": count for reason, count in out.refusals.items()}
    assert out.before is not None, "the soak came to its end"
    assert out.after is not None, "the soak came to its end"
    rows |= {"resident MB before": out.before.resident, "resident MB after": out.after.resident}
    rows |= {"threads before": out.before.threads, "threads after": out.after.threads}
    rows |= {"descriptors before": out.before.descriptors, "descriptors after": out.after.descriptors}
    if out.curve.slope is not None:
        rows[f"MB per {PER_CALLS:,} calls"] = out.curve.slope
    rows["violations"] = len(out.wrong)
    lines = "".join(f"{name:<36}{round(count, 2):>12,}\n" for name, count in rows.items())
    unjudged = f"memory was not judged: too few calls for a slope per {PER_CALLS:,}; soak for longer\n"
    return lines if out.curve.slope is not None else lines + unjudged


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: %(default)s)")
    parser.add_argument("--calls", type=int, help="after how many it ends, if the minutes suffice")
    parser.add_argument("--sessions", type=int, default=32, help="how many at a time (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=6, help="every other one a process (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server (default: %(default)s)")
    parser.add_argument("--places", type=int, help="the most calls, and Pipelines, at a time: few make for overload")
    parser.add_argument(
        "--piped", type=int, default=MOST_PIPED, help="the most calls of a Pipeline (default: %(default)s)"
    )
    parser.add_argument("--durability", choices=("memory", "journal", "fsync"), default="journal")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--story", metavar="ID", help="plays this one again, alone")
    parser.add_argument("--most-slope-mb", type=float, default=MOST_SLOPE_MB, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("out/soak.json"), help="(default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
