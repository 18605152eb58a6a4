"""ONNX's own node cases, run through the engine: every one whose operators are all in the table."""

import dataclasses
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

# Beside this file, but the tests are no package and their folder is not on the path.
spec = spec_from_file_location("conformance", Path(__file__).with_name("conformance.py"))
assert spec is not None
assert spec.loader is not None
conformance = module_from_spec(spec)
sys.modules[spec.name] = conformance
spec.loader.exec_module(conformance)

ALL = list(conformance.cases())
IN_SCOPE = [pytest.param(case, id=case.name) for case in ALL if conformance.unsupported(case) is None]


def test_two_thirds_of_all_cases_are_in_scope() -> None:
    assert len(IN_SCOPE) > len(ALL) * 2 / 3


@pytest.mark.parametrize("case", IN_SCOPE)
def test_node_case_gives_the_expected_outputs(case: Any) -> None:
    conformance.check(case)


def test_every_case_is_about_an_operator_of_onnx() -> None:
    known = {schema.name for schema in conformance.onnx.defs.get_all_schemas()}
    assert set(conformance.subjects(ALL).values()) <= known


def test_table_totals_add_up_to_the_number_of_cases() -> None:
    outcomes = {"Add": conformance.Counter(passed=3, strange=1), "Sub": conformance.Counter(passed=1, failed=2)}
    lines = list(conformance.table(outcomes, dict.fromkeys(conformance.OPS, "verified")))
    text = "\n".join(lines)
    assert "has 7 node cases" in text
    assert "- 4 passed" in text
    assert "- 2 failed" in text
    assert "- 1 excluded: strange" in text
    assert "| Sub | 1 of 3 | verified |  |" in lines


def test_case_with_another_expectation_fails() -> None:
    case = next(each for each in ALL if each.name == "test_add")
    (given, wanted), *_ = case.data_sets
    expected = conformance.array_of(wanted[0])
    assert conformance.outcome(case) == "passed"
    assert conformance.outcome(dataclasses.replace(case, data_sets=[(given, [expected + 1])])) == "failed"
