"""What a server still does when it is asked for ten times as much as it can, and what others notice of that."""

import hashlib
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks import figures, values
from tests.benchmarks.contender_remote import new_session
from tests.benchmarks.server_process import ROOT, backwire_server, environment, errors

import backwire as bw

MODEL = "transformer"
"""One whose steps compute for long and whose batches are small, so that it is the server that has too much to do."""

VISITORS = ("S", "M")
TIMES = 10
ONE_PROCESS = ("--workers", "1", "--max-concurrent-calls", "16", "--max-concurrent-computations", "1")
"""As each of several workers is by default: one computation at a time."""

FLOOD_RATE = 300.0
"""The calls in a second of the tenant that floods, of which the server can do about a twentieth."""


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the goodput at ten times the load that a server can bear, and another tenant's times beside a flood."""
    rounds, seconds = (2, 3.0) if quick else (5, 6.0)
    say(f"steps of {MODEL} at {TIMES} times what the server can do")
    rows = _goodput(rounds, seconds)
    say("a tenant beside another one's flood")
    return {"title": "overload", "rows": [*rows, *_beside_a_flood(rounds, seconds)]}


def _goodput(rounds: int, seconds: float) -> list[figures.Row]:
    peaks, goods, mute = [], [], 0
    with backwire_server(*ONE_PROCESS) as server:
        for _ in range(rounds):
            with _flood(server.address, seconds=seconds) as told:
                peaks.append(told().get("ok", 0) / seconds)
            with _flood(server.address, seconds=seconds, rate=TIMES * peaks[-1]) as told:
                counts = told()
            goods.append(counts.get("ok", 0) / seconds)
            mute += sum(count for name, count in counts.items() if name not in ("ok", "sent", "refused"))
    return [
        figures.row("peak", statistics.median(peaks), "steps/s"),
        figures.row(f"goodput at {TIMES}x", statistics.median(goods), "steps/s"),
        figures.row(f"goodput at {TIMES}x / peak", figures.ratio(goods, peaks), "x", least=0.8),
        figures.row("calls that were told no reason and time", mute, "calls"),
    ]


def _beside_a_flood(rounds: int, seconds: float) -> list[figures.Row]:
    """Measures the steps of one tenant, one after another, with and without another that floods the server."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = _tokens(path := Path(folder) / "tokens.toml")
        flags = (*ONE_PROCESS, "--tokens", str(path))
        with backwire_server(*flags) as server, bw.connect(server.address, token=ours) as client:
            for visitor in VISITORS:
                session, batch = new_session(client, visitor), values.batch(visitor)
                session.train_step(batch)  # the first takes longer
                quiet, beside = [], []
                for _ in range(rounds):
                    quiet.append(_times(session, batch, seconds / 2))
                    with _flood(server.address, seconds=seconds, rate=FLOOD_RATE, token=theirs) as told:
                        time.sleep(seconds / 4)
                        beside.append(_times(session, batch, seconds / 2))
                        told()
                rows += _beside_rows(visitor, quiet, beside)
    return rows


def _beside_rows(visitor: str, quiet: list[list[float]], beside: list[list[float]]) -> list[figures.Row]:
    rows = []
    for name, place in (("median", 0.5), ("99th of 100", 0.99)):
        alone, flooded = ([_quantile(each, place) for each in times] for times in (quiet, beside))
        rows += [
            figures.row(f"step of {visitor} alone, {name}", 1e3 * statistics.median(alone), "ms"),
            figures.row(f"beside a flood / alone, {name}", figures.ratio(flooded, alone), "x", most=2.0),
        ]
    return rows


def _times(session: bw.Session, batch: values.Batch, seconds: float) -> list[float]:
    found, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        session.train_step(batch)
        found.append(time.perf_counter() - begin)
    return found


def _quantile(times: list[float], place: float) -> float:
    return sorted(times)[min(int(len(times) * place), len(times) - 1)]


@contextmanager
def _flood(
    address: str, *, seconds: float, rate: float = 0.0, token: str = ""
) -> Iterator[Callable[[], dict[str, int]]]:
    """Runs a flood, and gives what waits for its end and returns what came of its calls."""
    arguments = [address, MODEL, f"--rate={rate}", f"--seconds={seconds}", *([f"--token={token}"] if token else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.flood", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors(),
        env=environment(),
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise OSError("the flood did not begin")
        process.stdin.write("go\n")
        process.stdin.flush()
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.append(process.stdout.read()))  # type: ignore[union-attr]
        reader.start()

        def told() -> dict[str, int]:
            reader.join()
            counts: dict[str, int] = json.loads(lines[0])
            return counts

        yield told
        reader.join()


def _tokens(path: Path) -> list[str]:
    """Writes a file with tokens for two tenants, and returns the tokens."""
    made, entries = [], []
    for tenant in ("ours", "theirs"):
        public = secrets.token_hex(8)
        made.append(f"bw_{public}_{secrets.token_urlsafe(32)}")
        digest = hashlib.sha256(made[-1].encode()).hexdigest()
        entries.append(
            f'[[token]]\nid = "{public}"\nname = "{tenant}"\ntenant = "{tenant}"\nscope = "write"\n'
            f'sha256 = "{digest}"\n'
        )
    path.write_text("\n".join(entries))
    path.chmod(0o600)
    return made
