"""Which cases are out of scope, by rule: the first that holds for a case is the reason."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from tests.engine.conformance_cases import NODE, Case

from backwire.onnx._prepare import folded, read

RANDOM = "random generators other than our own seeded ones"

DOMAINS = {"", "ai.onnx", "ai.onnx.preview", "ai.onnx.preview.training"}
SEQUENCES = {
    *("SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap"),
    *("ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"),
}
FOLDED = {"Constant", "If", "SplitToSequence", "SequenceAt"}
"""What is no operator of the engine's since loading turns it into others, where it can."""

TEXTS = {"RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"}
CONTROL_FLOW = {"Loop", "Scan"}
QUANTISED = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
}
LEFT_OUT = {"ImageDecoder", *SEQUENCES, *TEXTS, *CONTROL_FLOW, *QUANTISED}
"""The operators of ONNX that the engine does not have."""

GENERATORS = {
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
}

types = onnx.TensorProto
STRINGS = {types.STRING}
COMPLEX = {types.COMPLEX64, types.COMPLEX128}
SMALL = {number for name, number in types.DataType.items() if name.startswith(("FLOAT8", "FLOAT4"))}
SMALL |= {number for name, number in types.DataType.items() if name in ("INT4", "UINT4", "INT2", "UINT2")}


def element_types(case: Case) -> Iterator[int]:
    """Yields the types of the inputs, outputs and constants of a model."""
    graph = case.model.graph
    yield from (info.type.tensor_type.elem_type for info in (*graph.input, *graph.output))
    yield from (tensor.data_type for tensor in graph.initializer)
    yield from (attribute.t.data_type for node in graph.node for attribute in node.attribute)


def has_containers(case: Case) -> bool:
    infos = (*case.model.graph.input, *case.model.graph.output)
    return any(not info.type.HasField("tensor_type") for info in infos) or not SEQUENCES.isdisjoint(case.operators)


def has_control_flow(case: Case) -> bool:
    """Tells whether a case has graphs within its graph, once each If with a condition that is known is its branch."""
    graphs = (types_ := onnx.AttributeProto).GRAPH, types_.GRAPHS
    model = case.model
    if "If" in case.operators:
        model = folded(read(model), next(each.version for each in model.opset_import if not each.domain))
    return any(attribute.type in graphs for node in model.graph.node for attribute in node.attribute)


def draws(case: Case) -> bool:
    """Tells whether a case draws random numbers: a generator, or Dropout in training with a ratio other than 0."""
    if not GENERATORS.isdisjoint(case.operators):
        return True
    return case.suite == NODE and any(_drops(node, case) for node in case.model.graph.node)


def _drops(node: onnx.NodeProto, case: Case) -> bool:
    if node.op_type != "Dropout" or len(node.input) < 3:
        return False
    feeds = dict(zip((info.name for info in case.model.graph.input), case.data()[0][0], strict=True))
    _, ratio, mode = node.input
    return bool(feeds[mode]) and not (ratio and np.all(feeds[ratio] == 0))


RULES: dict[str, Callable[[Case], bool]] = {
    "operators of other domains": lambda case: any(node.domain not in DOMAINS for node in case.model.graph.node),
    "strings": lambda case: not STRINGS.isdisjoint(element_types(case)),
    "sequences, optionals and maps": has_containers,
    "control flow": has_control_flow,
    "complex numbers": lambda case: not COMPLEX.isdisjoint(element_types(case)),
    "quantised and 4/8-bit types": lambda case: (
        not QUANTISED.isdisjoint(case.operators) or not SMALL.isdisjoint(element_types(case))
    ),
    "image decoding": lambda case: "ImageDecoder" in case.operators,
    RANDOM: draws,
}
"""What the operator set leaves out, by the reason that the table gives."""


def exclusion(case: Case) -> str | None:
    """Returns the reason why a case is out of scope, or None."""
    return next((reason for reason, holds in RULES.items() if holds(case)), None)
