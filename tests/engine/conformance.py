"""Runs ONNX's backend suites and writes what came out as a page: `make conformance`.

`test_onnx_suites.py` holds the same cases, so that the page and the tests say the same.
"""

import argparse
import sys
from pathlib import Path

from tests.engine import conftest as bench
from tests.engine.conformance_cases import Case, all_cases
from tests.engine.conformance_run import check, check_drawn
from tests.engine.conformance_scope import RANDOM, exclusion
from tests.engine.conformance_table import FAILED, PASSED, Result, page

from backwire_server.engine.differentiate import is_float
from backwire_server.engine.errors import NotDifferentiable
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample

NONE, FIRST, SECOND, WRONG = "none", "1st", "2nd", "WRONG"
TOLERANCE = 1e-6


def outcome(case: Case) -> str:
    """Returns passed, failed, or the reason why the case is excluded."""
    reason = exclusion(case)
    try:
        if reason is None:
            check(case)
        elif reason == RANDOM:
            check_drawn(case)
    except Exception as error:
        sys.stderr.write(f"{case.suite} {case.name}: {error}\n")
        return FAILED
    return reason or PASSED


def gradient_order(name: str) -> str:
    """Returns the order to which the operator's gradients agree with central differences on its samples."""
    orders = {_sample_order(name, sample) for sample in OPS[name].samples}
    return next((order for order in (WRONG, FIRST, SECOND) if order in orders), NONE)


def _sample_order(name: str, sample: Sample) -> str:
    made = bench.make_bench(name, sample)
    names, outputs = tuple(made.leaves), [value for value in made.outputs if is_float(value.dtype)]
    if not (names and outputs):
        return NONE
    error, gradients = bench.gradient_error(made, outputs, names, "v")
    if error >= TOLERANCE:
        return WRONG
    if not gradients:
        return NONE
    try:
        error, _ = bench.gradient_error(made, gradients, tuple(made.leaves), "u")
    except NotDifferentiable:
        return FIRST
    return SECOND if error < TOLERANCE else WRONG


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the Markdown file to write")
    output = parser.parse_args().output
    results = [Result(case, outcome(case)) for case in all_cases()]
    gradients = {name: gradient_order(name) for name, op in OPS.items() if not op.internal}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(results, gradients), encoding="utf-8")
    failed = sum(result.outcome == FAILED for result in results)
    wrong = [name for name, order in gradients.items() if order == WRONG]
    sys.stdout.write(f"{output}: {len(results)} cases, {failed} failed; {len(wrong)} wrong gradients {wrong}\n")
    return int(bool(failed or wrong))


if __name__ == "__main__":
    sys.exit(main())
