"""Runs a case as a user's model would: loaded by the SDK, sent as a message, compiled and run by the engine."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tests.engine.conformance_cases import Case, feeds_of
from tests.optim import test_against_onnx

import backwire.onnx
from backwire_server.engine.model import Model
from backwire_server.messages.graph import graph_from_proto
from backwire_server.sessions.limits import Limits

LOSS = "loss"  # a graph's loss goes by this name, so an output may not

BFLOAT16_RTOL = 2.0**-6
"""Two units in the last place: expected values were rounded after each addition, and ours are not."""

OPTIMIZERS = test_against_onnx.KINDS.keys()
"""Operators that are rules of our optimizers, not of the engine; their cases are held against those."""


def check(case: Case, executor: type[Model] = Model) -> None:
    """Raises AssertionError, or an error of the SDK or the engine, unless a case gives what it should.

    That is outputs of the expected types, shapes and values: integers and bools exactly, floats within the tolerance
    of the case, or for bfloat16 within that of ONNX's own runner if that is more.
    """
    if not OPTIMIZERS.isdisjoint(case.operators):
        test_against_onnx.check(SimpleNamespace(name=case.name, model=case.model, data_sets=case.data()))
        return
    for _, found, expected in results(case, executor):
        for result, wanted in zip(found, expected, strict=True):
            check_type(result, wanted)
            if wanted.dtype.kind in "biu":
                np.testing.assert_array_equal(result, wanted)
            else:
                wide, reference = result.astype(np.float64), wanted.astype(np.float64)
                rtol = max(case.rtol, BFLOAT16_RTOL) if wanted.dtype.name == "bfloat16" else case.rtol
                np.testing.assert_allclose(wide, reference, rtol=rtol, atol=case.atol)


def check_drawn(case: Case) -> None:
    """Raises AssertionError unless a case of random numbers gives such as it should: by type, shape and range."""
    for feeds, found, expected in results(case):
        for result, wanted in zip(found, expected, strict=True):
            check_type(result, wanted)
        result, *masks = found
        kept = result != 0
        assert 0 < np.count_nonzero(kept) < kept.size
        np.testing.assert_allclose(result[kept], possible(case, feeds)[kept], rtol=case.rtol)
        for mask in masks:
            np.testing.assert_array_equal(mask, kept)


def possible(case: Case, feeds: Mapping[str, Any]) -> NDArray[Any]:
    """Returns what each element is unless it is 0: 1 where they are drawn, scaled by 1 / (1 - ratio) where dropped."""
    if case.about != "Dropout":
        return np.ones_like(case.data()[0][1][0])
    name, ratio, _ = case.model.graph.node[-1].input
    return np.asarray(feeds[name] / (1 - (feeds[ratio] if ratio else 0.5)))


def check_type(result: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert result.dtype == wanted.dtype
    assert result.shape == wanted.shape


def results(case: Case, executor: type[Model] = Model) -> list[tuple[Mapping[str, Any], Sequence[Any], Sequence[Any]]]:
    """Returns, for each data set of a case, what it was given, the outputs found and those expected."""
    model = without_loss(case.model)
    graph, sources = graph_from_proto(backwire.onnx.load(model).proto, Limits())
    engine = executor(graph)
    made: list[tuple[Mapping[str, Any], Sequence[Any], Sequence[Any]]] = []
    for given, expected in case.data():
        feeds = feeds_of(case, given)
        inputs = {item.name: feeds[item.name] for item in graph.inputs}
        parameters: dict[str, Any] = {name: feeds.get(name, source) for name, source in sources.items()}
        with np.errstate(all="ignore"):
            found = engine.forward(inputs, parameters, training=trains(model)).outputs
        made.append((feeds, [found[info.name] for info in model.graph.output], expected))
    return made


def without_loss(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy with another name for a value called loss, which the SDK takes for what is minimised."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for info in copy.graph.output:
        info.name = info.name.replace(LOSS, "value") if info.name == LOSS else info.name
    for node in copy.graph.node:
        node.output[:] = ["value" if name == LOSS else name for name in node.output]
    return copy


def trains(model: onnx.ModelProto) -> bool:
    """Tells whether a model is about what an operator does in training."""
    modes = (
        attribute.i for node in model.graph.node for attribute in node.attribute if attribute.name == "training_mode"
    )
    return any(modes) or any(node.op_type == "Dropout" and len(node.input) > 2 for node in model.graph.node)
