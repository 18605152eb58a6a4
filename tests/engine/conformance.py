"""Runs ONNX's own node cases through the engine and writes what came out as a table: `make conformance`.

`test_onnx_nodes.py` takes the cases from here, so that the table and the tests say the same.
"""

import argparse
import importlib
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.engine import ops as _ops  # noqa: F401
from backwire_server.engine.differentiate import is_float
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.registry import OPS

onnx = importlib.import_module("onnx")
loader = importlib.import_module("onnx.backend.test.loader")

PASSED, FAILED = "passed", "failed"
VERIFIED, NONE, WRONG = "verified", "none", "WRONG"
TOLERANCE = 1e-6
CONSTANT = "Constant"
BECAME_INPUTS = {"axes", "ratio"}  # attributes of older operator sets
DOMAINS = ("", "ai.onnx")
DTYPES = {"bfloat16", "bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
DTYPES |= {"float16", "float32", "float64"}


def array_of(value: Any) -> Any:
    """Returns a tensor of a case as an array, and whatever else it may hold as it is."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def cases() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases divide by zero when they compute what they expect
        yield from loader.load_model_tests(kind="node")


def tensors(case: Any) -> Iterator[Any]:
    for given, expected in case.data_sets:
        yield from map(array_of, (*given, *expected))


def unsupported(case: Any) -> str | None:
    """Returns the reason why a case is out of the engine's scope, or None."""
    model = case.model
    if any(not value.type.HasField("tensor_type") for value in (*model.graph.input, *model.graph.output)):
        return "sequences, optionals or maps"
    if any(
        attribute.type in (attribute.GRAPH, attribute.GRAPHS) for n in model.graph.node for attribute in n.attribute
    ):
        return "control flow"
    if any(not isinstance(each, np.ndarray) or each.dtype.name not in DTYPES for each in tensors(case)):
        return "strings, complex numbers or small element types"
    if any(n.domain not in DOMAINS or n.op_type not in (*OPS, CONSTANT) for n in model.graph.node):
        return "an operator that is not in the table"
    if any(OPS[n.op_type].internal for n in model.graph.node if n.op_type in OPS):
        return "an operator that is not in the table"
    if any(draws(n, case) for n in model.graph.node if n.op_type == "Dropout"):
        return "random numbers, which each engine draws in its own way"
    return None


def draws(dropout: Any, case: Any) -> bool:
    """Tells whether a Dropout node is in training and has a ratio other than 0."""
    feeds = dict(zip((each.name for each in case.model.graph.input), case.data_sets[0][0], strict=True))
    _, ratio, mode = [*dropout.input, "", ""][:3]
    return bool(mode and feeds[mode] and not (ratio and feeds[ratio] == 0))


def attribute_value(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return array_of(value)
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value


def constant(node: Any) -> NDArray[Any]:
    (attribute,) = node.attribute
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    return np.asarray(attribute_value(attribute), kinds.get(attribute.name))


def graph_of(model: Any, feeds: dict[str, NDArray[Any]]) -> Graph:
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    constants.update((n.output[0], constant(n)) for n in model.graph.node if n.op_type == CONSTANT)
    inputs = [Input(name, TensorType(array.dtype, array.shape)) for name, array in feeds.items()]
    nodes = [node_of(n, constants) for n in model.graph.node if n.op_type != CONSTANT]
    outputs = {str(index): each.name for index, each in enumerate(model.graph.output)}
    return Graph(tuple(inputs), (), constants, tuple(nodes), outputs)


def node_of(node: Any, constants: dict[str, NDArray[Any]]) -> Node:
    attributes = {each.name: attribute_value(each) for each in node.attribute}
    names = list(node.input)
    for name in BECAME_INPUTS & attributes.keys() - OPS[node.op_type].attributes.keys():
        names.append(f"{node.output[0]}_{name}")
        constants[names[-1]] = np.array(attributes.pop(name))
    return Node(node.op_type, tuple(names), tuple(node.output), attributes)


def trains(model: Any) -> bool:
    """Tells whether the case is about what an operator does in training."""
    modes = (attribute.i for n in model.graph.node for attribute in n.attribute if attribute.name == "training_mode")
    dropout = any(n.op_type == "Dropout" and len(n.input) > 2 for n in model.graph.node)
    return dropout or any(modes)


def check(case: Any) -> None:
    """Raises AssertionError or EngineError unless the engine gives the expected outputs, in type, shape and value."""
    names = [each.name for each in case.model.graph.input]
    for given, expected in case.data_sets:
        feeds = dict(zip(names, map(array_of, given), strict=True))
        found = Model(graph_of(case.model, feeds)).forward(feeds, {}, training=trains(case.model)).outputs
        for index, wanted in enumerate(map(array_of, expected)):
            result = found[str(index)]
            assert result.dtype == wanted.dtype
            assert result.shape == wanted.shape
            if wanted.dtype.kind in "biu":
                np.testing.assert_array_equal(result, wanted)
            else:
                wide, reference = result.astype(np.float64), wanted.astype(np.float64)
                np.testing.assert_allclose(wide, reference, rtol=case.rtol, atol=case.atol)


def subjects(all_cases: list[Any]) -> dict[str, str]:
    """Returns, by name of a case, the operator it is about; an expanded one is about that of the case it expands."""
    own = {case.name: case.model.graph.node[-1].op_type for case in all_cases}
    return {name: own.get(name.split("_expanded")[0], op) for name, op in own.items()}


def gradient_status(name: str, bench: Any) -> str:
    """Returns how the operator's gradient, to the second order, compares with central differences on its samples."""
    flows, right = False, True
    for sample in OPS[name].samples:
        made = bench.make_bench(name, sample)
        names, outputs = tuple(made.leaves), [value for value in made.outputs if is_float(value.dtype)]
        if not (names and outputs):
            continue
        error, gradients = bench.gradient_error(made, outputs, names, "v")
        right &= error < TOLERANCE
        flows |= bool(gradients)
        if gradients:
            right &= bench.gradient_error(made, gradients, tuple(made.leaves), "u")[0] < TOLERANCE
    return (VERIFIED if flows else NONE) if right else WRONG


def outcome(case: Any) -> str:
    """Returns passed, failed, or the reason why the case is excluded."""
    reason = unsupported(case)
    if reason is not None:
        return reason
    try:
        with np.errstate(all="ignore"):
            check(case)
    except Exception as error:
        sys.stderr.write(f"{case.name}: {error}\n")
        return FAILED
    return PASSED


def table(outcomes: dict[str, Counter[str]], gradients: dict[str, str]) -> Iterator[str]:
    """Yields the lines of the report: totals, then a row for each operator of ours or of a case."""
    totals = sum(outcomes.values(), Counter[str]())
    public = [name for name, op in OPS.items() if not op.internal]
    verified = sum(gradients[name] == VERIFIED for name in public)
    yield "# Conformance with ONNX"
    yield ""
    yield "Generated by `make conformance`; do not edit. Gradients are compared with central differences, and their own"
    yield "gradients too; none means that no gradient flows: the operator is piecewise constant or not about floats."
    yield "An operator with no entry there is not one of ours; cases of it that pass are functions made of others."
    yield ""
    yield f"- ONNX {onnx.__version__} has {totals.total()} node cases:"
    yield f"  - {totals[PASSED]} passed"
    yield f"  - {totals[FAILED]} failed"
    yield from (f"  - {count} excluded: {reason}" for reason, count in excluded(totals))
    yield f"- {len(public)} operators; the gradients of {verified} are verified."
    yield ""
    yield "| Operator | Cases passed | Gradient | Excluded cases |"
    yield "| --- | --- | --- | --- |"
    for name in sorted({*outcomes, *public}):
        counts = outcomes.get(name, Counter())
        run = counts[PASSED] + counts[FAILED]
        left_out = "; ".join(f"{count}: {reason}" for reason, count in excluded(counts))
        yield f"| {name} | {f'{counts[PASSED]} of {run}' if run else ''} | {gradients.get(name, '')} | {left_out} |"


def excluded(counts: Counter[str]) -> list[tuple[str, int]]:
    return [(reason, count) for reason, count in counts.most_common() if reason not in (PASSED, FAILED)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the Markdown file to write")
    output = parser.parse_args().output
    spec = spec_from_file_location("conformance_bench", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    bench = module_from_spec(spec)
    sys.modules[spec.name] = bench
    spec.loader.exec_module(bench)
    all_cases = list(cases())
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    about = subjects(all_cases)
    for case in all_cases:
        outcomes[about[case.name]][outcome(case)] += 1
    gradients = {name: gradient_status(name, bench) for name, op in OPS.items() if not op.internal}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(table(outcomes, gradients)) + "\n", encoding="utf-8")
    failed = sum(counts[FAILED] for counts in outcomes.values())
    wrong = [name for name, status in gradients.items() if status == WRONG]
    sys.stdout.write(f"{output}: {len(all_cases)} cases, {failed} failed; {len(wrong)} wrong gradients {wrong}\n")
    return int(bool(failed or wrong))


if __name__ == "__main__":
    sys.exit(main())
