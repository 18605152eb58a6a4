"""Computes one part of a batch, in whichever process."""

from collections.abc import Mapping

import numpy as np

from backwire_server.engine.cost import Admit, admit_all
from backwire_server.engine.graph import Array, Graph, Parameter
from backwire_server.engine.model import Model
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.optim import FlatLayout
from backwire_server.parallel.segment import Kind
from backwire_server.parallel.task import Part, Result


def compute(
    model: Model,
    part: Part,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Array],
    into: Mapping[str, Array],
    stop: Stop = NEVER,
    admit: Admit = admit_all,
) -> Result:
    """Leaves the gradients of the part's loss in `into`, weighted, and returns what else there is.

    Raises what `Model.forward` and `Model.backward` raise.
    """
    found = model.forward(inputs, parameters, training=True, outputs=part.outputs, key=part.key, stop=stop, admit=admit)
    gradients = model.backward(found, into=into, stop=stop, admit=admit, scale=part.scale).parameters
    if part.weight != 1:
        with np.errstate(all="ignore"):
            for array in gradients.values():
                np.multiply(array, part.weight, out=array)
    assert found.loss is not None
    return Result(found.loss, found.outputs, tuple(gradients))


def layout_of(graph: Graph) -> FlatLayout:
    """Returns where the trainable parameters of a graph lie, and their gradients."""
    return FlatLayout({p.name: _kind(p) for p in graph.parameters if not p.frozen})


def frozen_kinds(graph: Graph) -> dict[str, Kind]:
    """Returns the kinds of the frozen parameters of a graph by name."""
    return {p.name: _kind(p) for p in graph.parameters if p.frozen}


def _kind(parameter: Parameter) -> Kind:
    return parameter.type.dtype, tuple(int(size) for size in parameter.type.shape)
