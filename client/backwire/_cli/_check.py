"""`backwire check-gradients`: compares a model's gradients with finite differences, parameter by parameter."""

import argparse
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import backwire
from backwire._arrays import Array
from backwire._builder import _declare, _functions_reduction
from backwire._builder._graph import Graph
from backwire._builder._graph import graph as make_graph
from backwire._builder._value import Value
from backwire._cli import _models, _options
from backwire._client import Client
from backwire._errors import GraphError
from backwire._inspection import GradientCheck, ParameterCheck

TOLERANCES = {"float64": 1e-4, "float32": 5e-2}
"""The largest relative error that passes by default, by the type that was computed with: rounding, with room."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", metavar="MODEL.onnx", help="the model")
    parser.add_argument(
        "--loss", metavar="VALUE", help="the value to differentiate; by default a random weighting of all outputs"
    )
    parser.add_argument("--inputs", metavar="DATA.npz", help="an array for each input; what it lacks is drawn")
    _options.add_shapes(parser, "the shape of an input to draw; sizes that nothing gives are taken to be 2")
    parser.add_argument(
        "--seed", type=_options.seed, default=0, help="what random numbers follow from (default: %(default)s)"
    )
    parser.add_argument(
        "--elements", type=_options.positive, default=64, help="elements per parameter (default: %(default)s)"
    )
    parser.add_argument(
        "--tolerance",
        type=_options.above_zero,
        metavar="ERROR",
        help="the largest relative error that passes "
        f"(default: {TOLERANCES['float64']:g}, or {TOLERANCES['float32']:g} where only float32 computes the model)",
    )
    _options.add_json(parser)
    _options.add_target(parser, _options.PRIVATE, timeout=600.0)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Checks the model on the server, and yields what was found, as a text or as JSON.

    Raises GraphError for a model without parameters to train, and Failed when an error is above the tolerance.
    """
    model = _models.read_model(options.model)
    if all(item.frozen for item in model.proto.parameters):
        raise GraphError("the model has no parameter that trains, so there is no gradient to check; give one that has")
    data = _data(model, options)
    with backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client:
        weigh = _Weighting(client, data, options.seed)
        graph, loss = _models.with_loss(model, options.loss, weigh, "weighted_mean")
        with client.create_session(graph, seed=options.seed) as session:
            found = session.check_gradients(_needed(graph, data), max_elements=options.elements, seed=options.seed)
    tolerance = options.tolerance or TOLERANCES.get(found.dtype.name, TOLERANCES["float32"])
    passed = found.worst_error <= tolerance
    if options.json:
        yield _options.as_json(_document(found, loss, tolerance, passed=passed))
    else:
        yield from _lines(found, loss, tolerance, passed=passed)
    if not passed:
        raise _options.Failed


def _data(model: Graph, options: argparse.Namespace) -> dict[str, Array]:
    arrays = _models.read_arrays(options.inputs)
    given = {**dict(options.shape), **{name: array.shape for name, array in arrays.items()}}
    sizes = _models.sizes_of(model, given, otherwise=2)
    return _models.draw(model, sizes, arrays, options.seed)


def _needed(graph: Graph, data: Mapping[str, Array]) -> dict[str, Array]:
    return {item.name: data[item.name] for item in graph.proto.inputs}


class _Weighting:
    """Makes one number of an output: the mean of its elements, each times a random number.

    The plain mean would not do, since that of a softmax is constant, and then so would be every gradient. How many
    elements an output has may depend on the data, so it is computed once.
    """

    def __init__(self, client: Client, data: Mapping[str, Array], seed: int) -> None:
        self._client = client
        self._data = data
        self._seed = seed

    def __call__(self, name: str, value: Value) -> Value:
        model = make_graph(outputs={"value": value})
        with self._client.create_session(model, seed=self._seed) as session:
            shape = session.forward(_needed(model, self._data), "eval").outputs["value"].shape
        generator = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        weights = _declare.constant(generator.standard_normal(shape), value.dtype)
        return _functions_reduction.mean(value * weights)


def _lines(found: GradientCheck, loss: str, tolerance: float, *, passed: bool) -> Iterator[str]:
    yield f"loss {loss} = {found.loss:.6g}, computed in {found.dtype.name}"
    head = ("PARAMETER", "CHECKED", "WORST ERROR", "AT", "GRADIENT", "DIFFERENCE")
    rows = [head, *(_row(each) for each in found.parameters.values())]
    yield from _options.table(rows, right=(1, 2, 4, 5))
    verdict = "within" if passed else "above"
    yield f"worst error {found.worst_error:.1e}, {verdict} the tolerance of {tolerance:g}"


def _row(each: ParameterCheck) -> tuple[str, ...]:
    error, place = f"{each.worst_error:.1e}", str(list(each.worst_index))
    return each.name, str(each.checked), error, place, f"{each.gradient:.6g}", f"{each.difference:.6g}"


def _document(found: GradientCheck, loss: str, tolerance: float, *, passed: bool) -> dict[str, Any]:
    return {
        "passed": passed,
        "tolerance": tolerance,
        "worst_error": found.worst_error,
        "dtype": found.dtype.name,
        "loss": {"of": loss, "value": found.loss},
        "parameters": [asdict(each) for each in found.parameters.values()],
    }
