"""ONNX's backend suites, loaded by the SDK and run by the engine: all that is in scope, and only that."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx.backend.test import loader
from tests.engine import conformance, conformance_cases
from tests.engine.conformance_cases import NODE, SUITES, Case, all_cases, told
from tests.engine.conformance_run import OPTIMIZERS, check, check_drawn
from tests.engine.conformance_scope import FOLDED, LEFT_OUT, RANDOM, RULES, exclusion
from tests.engine.conformance_table import PASSED, Result, page

import backwire as bw
from backwire_server.engine.registry import OPS

PAGE = Path(__file__).parents[2] / "docs/conformance.md"
LEAST_NODE_CASES = 1_400
ALL = all_cases()
SCOPE = {id(case): exclusion(case) for case in ALL}


def label(case: Case) -> str:
    return f"{case.suite}-{case.name}"


def case_named(suite: str, name: str) -> Case:
    return next(case for case in ALL if (case.suite, case.name) == (suite, name))


@pytest.mark.parametrize("case", [case for case in ALL if SCOPE[id(case)] is None], ids=label)
def test_case_in_scope_gives_the_expected_outputs(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", [case for case in ALL if SCOPE[id(case)] == RANDOM], ids=label)
def test_random_numbers_have_the_expected_type_shape_and_range(case: Case) -> None:
    check_drawn(case)
    with pytest.raises(AssertionError):
        check(case)


@pytest.mark.parametrize("case", [case for case in ALL if SCOPE[id(case)] not in (None, RANDOM)], ids=label)
def test_excluded_case_is_refused_with_its_reason(case: Case) -> None:
    """Were it to pass, the rule that excludes it would be too wide."""
    with pytest.raises(bw.GraphError, match="not supported"):
        check(case)


@pytest.mark.parametrize("suite", SUITES)
def test_no_case_is_lost(suite: str) -> None:
    own = [case for case in ALL if case.suite == suite]
    counts = Counter(SCOPE[id(case)] for case in own)
    assert counts.keys() <= {None, *RULES}
    assert suite != NODE or counts[None] >= LEAST_NODE_CASES
    assert counts.total() == len({case.name for case in own}) == len(told(suite))


def test_cases_of_nodes_are_computed_once_and_again_where_what_was_kept_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []

    def load(kind: str) -> list[str]:
        computed.append(kind)
        return ["a case"]

    monkeypatch.setattr(conformance_cases, "KEPT", tmp_path / "out")
    monkeypatch.setattr(loader, "load_model_tests", load)
    assert [told(NODE), told(NODE)] == [["a case"], ["a case"]]
    (file,) = (tmp_path / "out").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert [told(NODE), told(NODE)] == [["a case"], ["a case"]]
    assert computed == [NODE, NODE]


def test_every_node_case_is_about_an_operator_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert {case.about for case in ALL if case.suite == NODE} <= known


def test_every_operator_of_onnx_is_there_or_out_of_scope() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    assert known - OPS.keys() == LEFT_OUT | FOLDED


def test_the_optimizers_cases_are_in_scope() -> None:
    held = [case for case in ALL if not OPTIMIZERS.isdisjoint(case.operators)]
    assert Counter(case.about for case in held) == {"Adagrad": 2, "Adam": 2, "Momentum": 3}
    assert {SCOPE[id(case)] for case in held} == {None}


@pytest.mark.parametrize(
    ("suite", "name"), [(NODE, "test_add"), (NODE, "test_adam"), ("pytorch-converted", "test_Conv2d")]
)
def test_case_with_another_expectation_fails(suite: str, name: str) -> None:
    case = case_named(suite, name)
    ((given, expected),) = case.data()
    other = dataclasses.replace(case, data=lambda: [(given, [array + 1 for array in expected])])
    assert conformance.outcome(case) == "passed"
    assert conformance.outcome(other) == "failed"


def test_page_says_what_holds_with_the_version_that_it_was_made_with() -> None:
    """Every case in scope passes by the tests above; gradients have their own in test_every_op.py."""
    text = PAGE.read_text(encoding="utf-8")
    gradients = dict(re.findall(r"^\| (\w+) \| [^|]*\| (1st|2nd|none) \|", text, re.MULTILINE))
    assert gradients.keys() == {name for name, op in OPS.items() if not op.internal}, "run make conformance"
    totals = [list(map(int, row)) for row in re.findall(r"^\| \S+" + r" \| (\d+)" * 4 + r" \|$", text, re.MULTILINE)]
    assert [sum(column) for column in zip(*totals[:-1], strict=True)] == totals[-1]
    assert all(count == sum(parts) for count, *parts in totals)
    if f"# Conformance with ONNX {onnx.__version__}\n" in text:
        results = [Result(case, SCOPE[id(case)] or PASSED) for case in ALL]
        assert text == page(results, gradients), "run make conformance"


def test_page_counts_failures_and_exclusions() -> None:
    add, less = case_named(NODE, "test_add"), case_named(NODE, "test_less")
    results = [Result(add, "passed"), Result(add, "strings"), Result(less, "failed"), Result(less, "passed")]
    lines = page(results, dict.fromkeys(OPS, "2nd")).splitlines()
    assert "| node | 4 | 2 | 1 | 1 |" in lines
    assert "| all | 4 | 2 | 1 | 1 |" in lines
    assert "| strings | 1 | 0 | 0 | 0 | 0 |" in lines
    assert "| Add | 1 of 1 | 2nd | 1: strings |" in lines
    assert "| Less | 1 of 2 | 2nd |  |" in lines
