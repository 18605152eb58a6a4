"""The gradients of outputs that a backward pass begins with, and the inputs whose gradients it is to give."""

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np

from backwire_server.engine.differentiate import is_float
from backwire_server.engine.dims import show
from backwire_server.engine.errors import (
    DtypeMismatch,
    MissingInput,
    NotDifferentiable,
    ShapeMismatch,
    UnknownInput,
    UnknownOutput,
)
from backwire_server.engine.graph import LOSS, Array, Graph, Input, TensorType
from backwire_server.engine.narrow import SINGLE
from backwire_server.engine.plan import Plan


def check_wrt(inputs: Mapping[str, Input], names: Sequence[str], given: Container[str]) -> None:
    """Raises UnknownInput, NotDifferentiable or MissingInput for what is no input that a pass has a gradient by."""
    for name in names:
        if name not in inputs:
            known = ", ".join(inputs) or "none"
            raise UnknownInput(f"the graph has no input {name!r}; its inputs are: {known}", field="wrt")
        if not is_float(inputs[name].type.dtype):
            dtype = inputs[name].type.dtype.name
            raise NotDifferentiable(
                f"input {name!r} is {dtype}; only floating-point inputs have gradients", field="wrt"
            )
        if name not in given:
            raise MissingInput(
                f"input {name!r} was not given to the pass; send it with Forward, or leave it out of wrt", field="wrt"
            )


def check_seeds(graph: Graph, seeds: Mapping[str, Array], type_of: Callable[[str], TensorType | None]) -> None:
    """Raises EngineError unless these can be gradients of outputs, by name; none are for the loss, which there must be.

    `type_of` tells the type that an output has in the pass, None where the pass was not given what it depends on.
    """
    if not seeds and graph.loss is None:
        raise UnknownOutput("the graph has no loss; give the gradients of outputs", field="output_gradients")
    for name, seed in seeds.items():
        path = f"output_gradients[{name}]"
        if (name not in graph.outputs) if name != LOSS else graph.loss is None:
            known = ", ".join(sorted(graph.outputs)) or "none"
            raise UnknownOutput(f"the graph has no output {name!r}; its outputs are: {known}", field=path)
        type_ = type_of(name)
        if type_ is None:
            raise MissingInput(f"output {name!r} depends on an input that the pass was not given", field=path)
        if not is_float(type_.dtype):
            raise NotDifferentiable(f"output {name!r} is {type_.dtype.name} and has no gradient", field=path)
        if seed.dtype != type_.dtype:
            raise DtypeMismatch(
                f"the gradient of output {name!r} is {seed.dtype.name}; the output is {type_}", field=path
            )
        if seed.shape != type_.shape:
            raise ShapeMismatch(
                f"the gradient of output {name!r} has shape {show(seed.shape)}; the output is {type_}", field=path
            )


def scaled(plan: Plan, seeds: Mapping[str, Array], scale: float) -> dict[str, Array]:
    """Returns the gradients of outputs times the scale, which is that of the loss where there are none."""
    if seeds:
        with np.errstate(over="ignore"):  # a scale may be beyond float16, where the product with it is not
            return {name: (seed * SINGLE.type(scale)).astype(seed.dtype) for name, seed in seeds.items()}
    type_ = plan.output_type(LOSS)
    assert type_ is not None
    return {LOSS: np.full(type_.shape, scale, type_.dtype)}
