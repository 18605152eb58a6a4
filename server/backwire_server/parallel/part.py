"""Computes one part of a batch, in whichever process."""

from collections.abc import Mapping

from backwire_server.engine.cost import Admit, admit_all
from backwire_server.engine.graph import Array, Graph, Parameter
from backwire_server.engine.model import Model, Pass
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.optim import FlatLayout
from backwire_server.parallel.segment import Kind, Segment, packed_bytes
from backwire_server.parallel.task import Part, Result


def forward(
    model: Model,
    part: Part,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Array],
    stop: Stop = NEVER,
    admit: Admit = admit_all,
) -> Pass:
    """Returns the pass of a part; raises what `Model.forward` raises."""
    return model.forward(inputs, parameters, training=True, outputs=part.outputs, key=part.key, stop=stop, admit=admit)


def result(
    model: Model,
    part: Part,
    found: Pass,
    seeds: Mapping[str, Array],
    into: Mapping[str, Array],
    stop: Stop = NEVER,
    admit: Admit = admit_all,
) -> Result:
    """Leaves the gradients of parameters in `into`, and returns what else is asked for, as it is.

    Raises what `Model.backward` raises; the pass is left as it was.
    """
    outputs = found.outputs if part.tells else {}
    if not part.differentiates:
        return Result(found.loss, outputs, ())
    gradients = model.backward(found, seeds, part.wrt, into, stop, admit, part.scale)
    return Result(found.loss, outputs, tuple(gradients.parameters), gradients.inputs)


def given(part: Part, segment: Segment) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns the inputs and the seeds of a part, which lie in a segment: the latter behind the former."""
    return segment.arrays(part.inputs), segment.arrays(part.seeds, packed_bytes(part.inputs))


def given_bytes(part: Part) -> int:
    """Returns the bytes of the segment that inputs and seeds of a part lie in."""
    return packed_bytes(part.inputs) + packed_bytes(part.seeds)


def layout_of(graph: Graph) -> FlatLayout:
    """Returns where the trainable parameters of a graph lie, and their gradients."""
    return FlatLayout({p.name: _kind(p) for p in graph.parameters if not p.frozen})


def frozen_kinds(graph: Graph) -> dict[str, Kind]:
    """Returns the kinds of the frozen parameters of a graph by name."""
    return {p.name: _kind(p) for p in graph.parameters if p.frozen}


def _kind(parameter: Parameter) -> Kind:
    return parameter.type.dtype, tuple(int(size) for size in parameter.type.shape)
