"""Our rules do what ONNX's training operators say, on the data of ONNX's own conformance suite."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from backwire_server import optim
from backwire_server.optim.rule import Piece

onnx = pytest.importorskip("onnx")
cases = pytest.importorskip("onnx.backend.test.case.node")


def momentum(options: Mapping[str, Any], count: int) -> tuple[optim.Rule, int]:
    """ONNX has a momentum before the first step, and scales the gradient by `beta` from the second on."""
    dampening = 1 - options["beta"] if count else 0.0
    nesterov, decay = options["mode"] == b"nesterov", options["norm_coefficient"]
    return optim.Sgd(options["alpha"], dampening, nesterov, weight_decay=decay), max(count + 1, 2)


def adagrad(options: Mapping[str, Any], count: int) -> tuple[optim.Rule, int]:
    decay = options["norm_coefficient"]
    return optim.Adagrad(options["decay_factor"], 0, options["epsilon"], weight_decay=decay), count + 1


def adam(options: Mapping[str, Any], count: int) -> tuple[optim.Rule, int]:
    """ONNX does not correct the bias at a count of 0; ours is corrected away after many steps."""
    assert count == 0
    assert options.get("norm_coefficient_post", 0) == 0
    decay = options["norm_coefficient"]
    return optim.Adam(options["alpha"], options["beta"], options["epsilon"], weight_decay=decay), 1_000_000


KINDS = {
    "Momentum": (momentum, ["momentum"]),
    "Adagrad": (adagrad, ["sum_of_squares"]),
    "Adam": (adam, ["first_moment", "second_moment"]),
}


def test_one_step_of_every_case() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # data of other operators overflow on purpose
        found = [case for case in cases.collect_testcases(None) if case.model.graph.node[0].op_type in KINDS]
    assert {case.model.graph.node[0].op_type for case in found} == set(KINDS)
    for case in found:
        check(case)


def check(case: Any) -> None:
    """Inputs are the rate, the count of earlier steps, then all parameters, all gradients, and each kind of state."""
    (node,) = case.model.graph.node
    options = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    make, names = KINDS[node.op_type]
    (rate, count, *rest), expected = case.data_sets[0]
    rule, step = make(options, int(count))
    number = len(rest) // (len(names) + 2)
    for index in range(number):
        values, slopes, *memory = (array.astype(np.float64) for array in rest[index::number])
        state = dict(zip(names, memory, strict=True))
        scratch = [np.empty_like(values) for _ in range(rule.scratch_count)]
        rule.update(Piece(values, slopes, state, scratch), step, float(rate))
        for actual, wanted in zip([values, *memory], expected[index::number], strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, err_msg=case.name)
