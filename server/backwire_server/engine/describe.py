"""What training a graph would take, worked out from shapes alone: types, work and memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backwire_server.engine.binding import bind_inputs
from backwire_server.engine.builder import RANDOM_KEY, RANDOM_KEY_TYPE
from backwire_server.engine.cost import flops_by_owner, nbytes
from backwire_server.engine.dims import Symbolic
from backwire_server.engine.errors import EngineError, GraphError, MissingInput
from backwire_server.engine.graph import Array, Graph, Input, TensorType
from backwire_server.engine.plan import Plan, compile_plan
from backwire_server.engine.program import PLANNED_BYTES, Program
from backwire_server.engine.stopping import NEVER, Stop

_ANY = np.dtype(np.int8)  # stands for the element type of an input that the graph does not have


@dataclass(frozen=True, slots=True)
class NodeWork:
    """The floating-point operations of a node of the graph, and those of its gradient; see `cost.flops`.

    What several nodes have in common is computed, and counts, at the first of them alone.
    """

    forward: int
    backward: int


@dataclass(frozen=True, slots=True)
class Description:
    """What a training pass computes and costs, by the plan that it would run by.

    Attributes:
        values: The types of the graph's values by name, as far as they can be computed.
        nodes: The work of each node, by its first output, in the order in which they run.
        outputs: The types of the outputs by name.
        forward_flops: The floating-point operations of the forward program; see `cost.flops`.
        backward_flops: Those of the usual backward program: the loss by the parameters, else all outputs.
        pass_bytes: What is kept for Backward.
        peak_bytes: The most that inputs, values and gradients hold at any moment, without parameters and without what
            a kernel that plans nothing needs only while it runs.
    """

    values: dict[str, TensorType]
    nodes: dict[str, NodeWork]
    outputs: dict[str, TensorType]
    forward_flops: int
    backward_flops: int
    pass_bytes: int
    peak_bytes: int


def node_names(graph: Graph) -> Iterator[str]:
    """Yields the first output of each node, in the order in which they run."""
    return (next(filter(None, node.outputs)) for node in graph.topological_nodes)


def input_types(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> dict[str, TensorType]:
    """Returns the type of each input whose shape is given, or follows from the graph and the other shapes.

    Raises UnknownInput, ShapeMismatch, and MissingInput when loss, outputs or updates depend on an input without a
    shape; the `field` is `input_shapes[name]`.
    """
    declared = {item.name: item for item in graph.inputs}
    found = _bound(declared, shapes)
    pairs = ((declared[name].type.shape, type_.shape) for name, type_ in found.items())
    sizes = {dim: size for dims, shape in pairs for dim, size in zip(dims, shape, strict=True)}
    for item in graph.inputs:
        shape = tuple(sizes.get(dim, dim) for dim in item.type.shape)
        if item.name not in found and not any(isinstance(dim, Symbolic) for dim in shape):
            found[item.name] = TensorType(item.type.dtype, shape)
    needed = graph.dependencies([*graph.outputs.values(), *graph.updates.values(), graph.loss or ""])
    for name, item in declared.items():
        if name in needed and name not in found:
            message = f"input {name!r} is {item.type}, and nothing says its sizes; give its shape"
            raise MissingInput(message, field=f"input_shapes[{name}]")
    return found


def describe(
    graph: Graph,
    trainable: Sequence[str],
    inputs: Mapping[str, TensorType],
    known: Mapping[str, Array],
    stop: Stop = NEVER,
) -> Description:
    """Describes a graph that Model accepts for inputs of these types.

    `known` holds the parameters whose elements shapes may depend on. Raises EngineError where the shapes do not fit
    together, MissingInput when one depends on elements that are not known, and Stopped when that is wanted.
    """
    plan = _compile(graph, trainable, inputs, known, stop)
    programs = [plan.program, *([plan.backward(*plan.usual, stop).program] if plan.usual is not None else [])]
    given = sum(map(nbytes, inputs.values())) + nbytes(RANDOM_KEY_TYPE)
    kept_bytes, peaks = _memory(programs, plan.residuals)
    kept = given + kept_bytes
    work = [program.flops for program in programs]
    owned = [flops_by_owner(program.nodes, program.types) for program in programs]
    outputs = ((name, plan.output_type(name)) for name in sorted(graph.outputs))
    return Description(
        values={name: type_ for name, type_ in plan.types().items() if name != RANDOM_KEY},
        nodes={
            name: NodeWork(owned[0].get(name, 0), sum(each.get(name, 0) for each in owned[1:]))
            for name in node_names(graph)
        },
        outputs={name: type_ for name, type_ in outputs if type_ is not None},
        forward_flops=work[0],
        backward_flops=sum(work[1:]),
        pass_bytes=kept,
        peak_bytes=max(held + peak for held, peak in zip((given, kept), peaks, strict=False)),
    )


def _memory(programs: Sequence[Program], residuals: Sequence[str]) -> tuple[int, list[int]]:
    """Returns what the first program keeps, and the most that each holds; every value in full where none can run."""
    if any(program.nbytes > PLANNED_BYTES for program in programs):
        types = programs[0].types
        return sum(nbytes(types[name]) for name in residuals), [program.nbytes for program in programs]
    return programs[0].schedule.kept_bytes, [program.schedule.peak_bytes for program in programs]


def _bound(declared: Mapping[str, Input], shapes: Mapping[str, Sequence[int]]) -> dict[str, TensorType]:
    dtypes = {name: item.type.dtype for name, item in declared.items()}
    types = {name: TensorType(dtypes.get(name, _ANY), tuple(shape)) for name, shape in shapes.items()}
    try:
        return bind_inputs(declared, types)
    except EngineError as error:
        raise type(error)(str(error), field=error.field.replace("inputs[", "input_shapes[", 1)) from None


def _compile(
    graph: Graph,
    trainable: Sequence[str],
    inputs: Mapping[str, TensorType],
    values: Mapping[str, Array],
    stop: Stop,
) -> Plan:
    feeds = {**inputs, **{item.name: item.type for item in graph.parameters}, RANDOM_KEY: RANDOM_KEY_TYPE}
    names, with_loss = sorted(graph.outputs), graph.loss is not None
    known: dict[str, Array] = {}
    while isinstance(outcome := compile_plan(graph, trainable, feeds, known, names, with_loss, True, stop), frozenset):
        for name in sorted(outcome - values.keys()):
            raise MissingInput(
                f"a shape depends on the elements of {name!r}, which are not known here; make it a constant", field=name
            )
        if outcome <= known.keys():
            raise GraphError("a shape depends on values that cannot be known before the graph runs")
        known.update((name, values[name]) for name in outcome)
    return outcome
