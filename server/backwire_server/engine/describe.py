"""What training a graph would take, worked out from shapes alone: types, work and memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from backwire_server.engine.binding import bind_inputs
from backwire_server.engine.builder import RANDOM_KEY, RANDOM_KEY_TYPE, Emitted
from backwire_server.engine.dims import Symbolic, concrete
from backwire_server.engine.errors import EngineError, GraphError, MissingInput
from backwire_server.engine.graph import Array, Graph, Input, TensorType
from backwire_server.engine.plan import Plan, compile_plan
from backwire_server.engine.program import Program

Types = Mapping[str, TensorType | None]

_ANY = np.dtype(np.int8)  # stands for the element type of an input that the graph does not have


@dataclass(frozen=True, slots=True)
class Description:
    """What a training pass computes and costs. Every value counts in full, also where two would share memory.

    Attributes:
        values: The types of the graph's values by name, as far as they can be computed.
        outputs: The types of the outputs by name.
        forward_flops: The floating-point operations of the forward program; see `flops`.
        backward_flops: Those of the usual backward program: the loss by the parameters, else all outputs.
        pass_bytes: What is kept for Backward.
        peak_bytes: The most that inputs, values and gradients hold at any moment, without parameters and without what
            a kernel needs only while it runs.
    """

    values: dict[str, TensorType]
    outputs: dict[str, TensorType]
    forward_flops: int
    backward_flops: int
    pass_bytes: int
    peak_bytes: int


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


def nbytes(type_: TensorType | None) -> int:
    """Returns the bytes of a value whose shape is known."""
    return _size(type_) * type_.dtype.itemsize if type_ else 0


def describe(
    graph: Graph, trainable: Sequence[str], inputs: Mapping[str, TensorType], known: Mapping[str, Array]
) -> Description:
    """Describes a graph that Model accepts for inputs of these types.

    `known` holds the parameters whose elements shapes may depend on. Raises EngineError where the shapes do not fit
    together, MissingInput when one depends on elements that are not known.
    """
    plan = _compile(graph, trainable, inputs, known)
    programs = [plan.program, *([plan.backward(*plan.usual).program] if plan.usual is not None else [])]
    given = sum(map(nbytes, inputs.values())) + nbytes(RANDOM_KEY_TYPE)
    kept = given + sum(nbytes(plan.program.types[name]) for name in plan.residuals)
    work = [sum(flops(node, program.types) for node in program.nodes) for program in programs]
    outputs = ((name, plan.output_type(name)) for name in sorted(graph.outputs))
    return Description(
        values={name: type_ for name, type_ in plan.types().items() if name != RANDOM_KEY},
        outputs={name: type_ for name, type_ in outputs if type_ is not None},
        forward_flops=work[0],
        backward_flops=sum(work[1:]),
        pass_bytes=kept,
        peak_bytes=max(held + _peak(program) for held, program in zip((given, kept), programs, strict=False)),
    )


def flops(node: Emitted, types: Types) -> int:
    """Returns the floating-point operations of a node: by formula for products, else one for each element it makes.

    A product of matrices, and a convolution and its gradients, count two for each multiplication.
    """
    if node.op.name in _MULTIPLICATIONS:
        of = [types[name] for name in (*node.inputs, *node.outputs)]
        return 2 * _MULTIPLICATIONS[node.op.name](*of)
    return sum(_size(types[name]) for name in node.outputs)


def _kernel(type_: TensorType) -> int:
    """The multiplications for one element of a convolution's result, of kernels [M, C/group, k1, ...]."""
    return prod(concrete(type_.shape[1:]))


_MULTIPLICATIONS: Mapping[str, Callable[..., int]] = {
    "MatMul": lambda a, b, y: _size(y) * concrete(a.shape)[-1],  # noqa: ARG005
    "Convolution": lambda x, w, y: _size(y) * _kernel(w),  # noqa: ARG005
    "ConvolutionInputGradient": lambda g, w, x: _size(g) * _kernel(w),  # noqa: ARG005
    "ConvolutionKernelGradient": lambda x, g, w: _size(g) * _kernel(w),  # noqa: ARG005
}


def _bound(declared: Mapping[str, Input], shapes: Mapping[str, Sequence[int]]) -> dict[str, TensorType]:
    dtypes = {name: item.type.dtype for name, item in declared.items()}
    types = {name: TensorType(dtypes.get(name, _ANY), tuple(shape)) for name, shape in shapes.items()}
    try:
        return bind_inputs(declared, types)
    except EngineError as error:
        raise type(error)(str(error), field=error.field.replace("inputs[", "input_shapes[", 1)) from None


def _compile(
    graph: Graph, trainable: Sequence[str], inputs: Mapping[str, TensorType], values: Mapping[str, Array]
) -> Plan:
    feeds = {**inputs, **{item.name: item.type for item in graph.parameters}, RANDOM_KEY: RANDOM_KEY_TYPE}
    names, with_loss = sorted(graph.outputs), graph.loss is not None
    known: dict[str, Array] = {}
    while isinstance(outcome := compile_plan(graph, trainable, feeds, known, names, with_loss, True), frozenset):
        for name in sorted(outcome - values.keys()):
            raise MissingInput(
                f"a shape depends on the elements of {name!r}, which are not known here; make it a constant", field=name
            )
        if outcome <= known.keys():
            raise GraphError("a shape depends on values that cannot be known before the graph runs")
        known.update((name, values[name]) for name in outcome)
    return outcome


def _peak(program: Program) -> int:
    """Returns the most bytes that the program's own values hold at any moment; a value goes after its last use."""
    last_use = {name: index for index, node in enumerate(program.nodes) for name in (*node.outputs, *node.inputs)}
    made = {name for node in program.nodes for name in node.outputs}
    held = peak = 0
    for index, node in enumerate(program.nodes):
        held += sum(nbytes(program.types[name]) for name in node.outputs)
        peak = max(peak, held)
        finished = {name for name in (*node.inputs, *node.outputs) if last_use[name] == index and name in made}
        held -= sum(nbytes(program.types[name]) for name in finished - set(program.targets))
    return peak


def _size(type_: TensorType | None) -> int:
    return prod(concrete(type_.shape)) if type_ else 0
