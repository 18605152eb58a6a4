"""Gives hostile inputs to the server's readers, guided by coverage: `python -m tests.fuzz`.

Each target runs in a process of its own, whose address space is bounded, for its share of the time. Inputs that find
something are written to out/fuzz/, and the exit status is 1. Where atheris is not installed, inputs are random.
"""

import argparse
import importlib
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT = Path("out/fuzz")
MOST_GROWTH = 4 << 30
"""The bytes of address space that a target may take beyond what it has when it begins."""
MOST_LENGTH = 4_096


def main() -> int:
    """Runs the targets one after another; returns 1 when one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--inputs", type=int, default=0, help="the most for each target; 0 for as many as time allows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", default="")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if given.child:
        _child(given.target, given.seconds, given.inputs, given.seed)
    names = [given.target] if given.target else _names()
    counts = [_run(name, given.seconds / len(names), given.inputs, given.seed) for name in names]
    total, findings = sum(ran for ran, _ in counts), sum(found for _, found in counts)
    _tell(f"{total:,} inputs, {findings} findings")
    return int(findings > 0)


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _names() -> list[str]:
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def _run(name: str, seconds: float, inputs: int, seed: int) -> tuple[int, int]:
    """Returns how many inputs a target was given, and how many of its findings differ; a process that died is one."""
    report = OUT / f"{name}.json"
    report.unlink(missing_ok=True)
    options = ["--target", name, "--seconds", str(seconds), "--inputs", str(inputs), "--seed", str(seed)]
    with open(OUT / f"{name}.log", "wb") as log:
        child = subprocess.run([sys.executable, "-m", "tests.fuzz", "--child", *options], stderr=log, stdout=log)
    if child.returncode or not report.exists():
        _tell(f"{name}: its process ended with {child.returncode}; see {log.name}")
        return 0, 1
    found = json.loads(report.read_text())
    _tell(f"{name}: {found['inputs']:,} inputs, {len(found['findings'])} findings")
    for text in found["findings"]:
        _tell(f"    {text}")
    return found["inputs"], len(found["findings"])


def _child(name: str, seconds: float, inputs: int, seed: int) -> None:
    """Runs a target in this process, and ends it."""
    guided = importlib.util.find_spec("atheris") is not None
    if guided:
        atheris: Any = importlib.import_module("atheris")

        with atheris.instrument_imports(include=["backwire_api", "backwire_server"]):
            from tests.fuzz import targets
    else:
        from tests.fuzz import targets
    corpus = OUT / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(targets.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    one = _counting(name, seconds, inputs)
    if guided:
        options = [f"-seed={seed}", f"-max_len={MOST_LENGTH}", f"-artifact_prefix={OUT}/", "-rss_limit_mb=0"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], one)
        atheris.Fuzz()
    draws = random.Random(seed)
    while True:
        one(draws.randbytes(draws.randrange(256)))


def _counting(name: str, seconds: float, inputs: int) -> Callable[[bytes], None]:
    """Returns what gives an input to the target, until there was time or number enough: then the process ends."""
    from tests.fuzz.targets import TARGETS
    from tests.fuzz.watch import Finding, attempt

    _bound_memory()
    end, ran = time.monotonic() + seconds, 0
    findings: dict[str, str] = {}

    def one(data: bytes) -> None:
        nonlocal ran
        ran += 1
        try:
            attempt(TARGETS[name], data)
        except Finding as finding:
            if finding.place not in findings:
                file = OUT / f"{name}-{len(findings)}.input"
                file.write_bytes(data)
                findings[finding.place] = f"{finding} ({file})"
        if ran == inputs or time.monotonic() > end:
            (OUT / f"{name}.json").write_text(json.dumps({"inputs": ran, "findings": list(findings.values())}))
            os._exit(0)

    return one


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    sys.exit(main())
