"""ONNX's backend suites on the JAX executor: what is in scope gives the expected outputs there too.

To compile all cases takes minutes, so here it is every fifteenth; with BACKWIRE_CASES=1 it is each. Of the 1,707 of
onnx 1.23, 12 are then beyond their tolerance: 11 in half precision by a unit in the last place, and squeezenet, whose
logits of 1e10 XLA seems to round otherwise than their maximum. Fourier transforms have a tolerance of our own.
"""

import os
from dataclasses import replace

import pytest

pytest.importorskip("jax")

from tests.engine.conformance_cases import Case, all_cases
from tests.engine.conformance_run import OPTIMIZERS, check
from tests.engine.conformance_scope import exclusion

from backwire_server.xla.model import XlaModel

FOURIER = {"DFT", "STFT"}
EVERY = int(os.environ.get("BACKWIRE_CASES", "15"))
CASES = [case for case in all_cases() if exclusion(case) is None and OPTIMIZERS.isdisjoint(case.operators)]


@pytest.mark.parametrize("case", CASES[::EVERY], ids=lambda case: f"{case.suite}-{case.name}")
def test_case_in_scope_gives_the_expected_outputs(case: Case) -> None:
    if not FOURIER.isdisjoint(case.operators):
        case = replace(case, atol=1e-5)  # a sum of 0 is one of 2e-6 in another order, by the release of XLA
    check(case, XlaModel)
