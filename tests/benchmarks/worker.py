"""A process that does steps when it is told to, so that implementations never share threads or allocators.

`python -m tests.benchmarks.worker CONTENDER` reads a command in JSON from each line of standard input and answers with
a line of JSON. The module of the contender is imported here, and prepares the environment before it imports numpy.
"""

import cProfile
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from tests.benchmarks.server_process import resident_bytes

PROFILED_FUNCTIONS = 20


class Contender(Protocol):
    """An implementation of training steps."""

    def setup(self, model: str) -> dict[str, Any]:
        """Makes a model ready, drops the one before, and returns its first loss and the prints of its gradients."""

    def run(self, steps: int) -> None:
        """Trains for so many steps, and returns when the last has been made."""


def main() -> None:
    """Serves commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints must not disturb the answers
    contender: Contender | None = None
    for line in sys.stdin:
        try:
            contender = contender or _made(sys.argv[1])
            answer = _answer(contender, json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _made(name: str) -> Contender:
    module, _, variant = name.partition(":")
    make: Callable[[str], Contender] = importlib.import_module(f"tests.benchmarks.contender_{module}").Contender
    return make(variant)


def _answer(contender: Contender, command: dict[str, Any]) -> dict[str, Any]:
    if "setup" in command:
        return contender.setup(command["setup"])
    if "profile" in command:
        return _profile(contender, command["profile"])
    wall, cpu = time.perf_counter(), time.process_time()
    contender.run(command["run"])
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "resident": resident_bytes(os.getpid(), children=False),
        "blocks": sys.getallocatedblocks(),
    }


def _profile(contender: Contender, steps: int) -> dict[str, Any]:
    """Returns the functions that take most of a step, and the operators where the contender can tell."""
    profiler = cProfile.Profile()
    profiler.runcall(contender.run, steps)
    functions = [
        {
            "name": _function(entry.code),
            "calls_per_step": entry.callcount / steps,
            "milliseconds_per_step": 1000 * entry.inlinetime / steps,
        }
        for entry in sorted(profiler.getstats(), key=lambda entry: -entry.inlinetime)[:PROFILED_FUNCTIONS]
    ]
    operators = getattr(contender, "operators", None)
    return {"functions": functions, "operators": operators(steps) if operators else []}


def _function(code: Any) -> str:
    if isinstance(code, str):
        return code
    return f"{os.path.basename(code.co_filename)}:{code.co_firstlineno} {code.co_qualname}"


if __name__ == "__main__":
    main()
