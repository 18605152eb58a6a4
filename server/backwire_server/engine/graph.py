"""The graph: plain immutable data that says what is computed from what."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.engine.derived import derived
from backwire_server.engine.dims import Dim, Shape, Symbolic, show
from backwire_server.engine.errors import CyclicGraph, GraphError
from backwire_server.engine.narrow import SINGLE

Array = NDArray[Any]
DType = np.dtype[Any]
Attribute = int | float | str | Array | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]

LOSS = "loss"  # the output name that is reserved for the loss
GRADIENT = "Gradient"  # the operator that differentiates within a graph; its attribute y names a value
RESERVED = "%"  # begins the names of values that the engine adds


@dataclass(frozen=True, slots=True)
class TensorType:
    """An element type and a shape whose dimensions may be symbolic."""

    dtype: DType
    shape: Shape

    @classmethod
    def of(cls, dtype: Any, shape: Iterable[int | str | Dim]) -> "TensorType":
        """Returns the type; texts in the shape become symbolic dimensions."""
        return cls(np.dtype(dtype), tuple(Symbolic.of(dim) if isinstance(dim, str) else dim for dim in shape))

    def __str__(self) -> str:
        return f"{self.dtype.name}{show(self.shape)}"


@dataclass(frozen=True, slots=True)
class Input:
    """A value that each forward pass is given."""

    name: str
    type: TensorType


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that belongs to the session; `frozen` ones have no gradient."""

    name: str
    type: TensorType
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: `outputs = op(inputs, **attributes)`. An empty name leaves out an optional input or output."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    name: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the values that must be there before this node: its inputs, and what Gradient differentiates."""
        names = tuple(filter(None, self.inputs))
        return (*names, str(self.attributes["y"])) if self.op == GRADIENT and "y" in self.attributes else names

    @property
    def label(self) -> str:
        """What messages call this node: its name, or that of its first output."""
        return self.name or next(filter(None, self.outputs), "?")


@dataclass(frozen=True)
class Graph:
    """A computation graph. Raises GraphError when names clash or are undefined, CyclicGraph when nodes go in a circle.

    `outputs` maps the name of each output to the name of a value; `loss` is the name of a value, or None; `updates`
    maps the name of a frozen parameter to that of the value that replaces it after a pass in training; `precision` is
    the type that products of float32 are computed in, see `engine.precision`.
    """

    inputs: tuple[Input, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    constants: Mapping[str, Array] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    loss: str | None = None
    updates: Mapping[str, str] = field(default_factory=dict)
    precision: DType = SINGLE

    def __post_init__(self) -> None:
        known = set(self._defined_names())
        self._check_nodes(known)
        self._check_results(known)
        self._check_updates(known)
        _ = self.topological_nodes

    def _check_nodes(self, known: Container[str]) -> None:
        for index, node in enumerate(self.nodes):
            for name in node.sources:
                if name not in known:
                    raise GraphError(
                        f"{node.op} node {node.label!r} uses value {name!r}, which nothing defines; define it as an "
                        "input, parameter, constant or output of a node",
                        field=f"graph.nodes[{index}].inputs",
                    )

    def _check_results(self, known: Container[str]) -> None:
        for output, name in self.outputs.items():
            if name not in known:
                raise GraphError(
                    f"output {output!r} names value {name!r}, which nothing defines", field="graph.outputs"
                )
            if output == LOSS and name != self.loss:
                raise GraphError(f"the output name {LOSS!r} is reserved for the loss; rename it", field="graph.outputs")
        if self.loss is not None and self.loss not in known:
            raise GraphError(f"the loss names value {self.loss!r}, which nothing defines", field="graph.loss")

    def _check_updates(self, known: Container[str]) -> None:
        frozen = {parameter.name for parameter in self.parameters if parameter.frozen}
        for parameter, name in self.updates.items():
            if parameter not in frozen:
                message = f"{parameter!r} is to be updated, but is no frozen parameter; only those can be"
                raise GraphError(message, field="graph.updates")
            if name not in known:
                message = f"the update of {parameter!r} is {name!r}, which nothing defines"
                raise GraphError(message, field="graph.updates")

    @derived
    def topological_nodes(self) -> tuple[Node, ...]:
        """The nodes, each after those it depends on."""
        producers = {name: node for node in self.nodes for name in filter(None, node.outputs)}
        positions = {id(node): index for index, node in enumerate(self.nodes)}
        needed = {
            positions[id(node)]: [positions[id(producers[name])] for name in node.sources if name in producers]
            for node in self.nodes
        }
        if all(before < index for index, sources in needed.items() for before in sources):
            return self.nodes
        try:
            return tuple(self.nodes[index] for index in TopologicalSorter(needed).static_order())
        except CycleError as error:
            labels = " -> ".join(repr(self.nodes[index].label) for index in reversed(error.args[1]))
            raise CyclicGraph(
                f"the nodes {labels} form a cycle; remove one of these edges", field="graph.nodes"
            ) from None

    def dependencies(self, values: Iterable[str]) -> set[str]:
        """Returns the names of all values that the given ones are computed from, themselves included."""
        producers = {name: node for node in self.nodes for name in filter(None, node.outputs)}
        found: set[str] = set()
        pending = list(values)
        while pending:
            name = pending.pop()
            if name and name not in found:
                found.add(name)
                if name in producers:
                    pending.extend(producers[name].sources)
        return found

    def targets(self, outputs: Sequence[str]) -> dict[str, str]:
        """Returns output name -> value name for the named outputs; `loss` names the loss."""
        return {name: self.loss if name == LOSS and self.loss else self.outputs[name] for name in outputs}

    def _defined_names(self) -> Iterator[str]:
        seen: set[str] = set()
        for name, path in self._definitions():
            if not name:
                raise GraphError("a value needs a name that is not empty", field=path)
            if name.startswith(RESERVED):
                raise GraphError(f"value {name!r} begins with {RESERVED!r}, which is reserved; rename it", field=path)
            if name in seen:
                raise GraphError(f"value {name!r} is defined twice; rename one of them", field=path)
            seen.add(name)
            yield name

    def _definitions(self) -> Iterator[tuple[str, str]]:
        yield from ((item.name, f"graph.inputs[{i}].name") for i, item in enumerate(self.inputs))
        yield from ((item.name, f"graph.parameters[{i}].name") for i, item in enumerate(self.parameters))
        yield from ((name, f"graph.constants[{i}].name") for i, name in enumerate(self.constants))
        for i, node in enumerate(self.nodes):
            if not any(node.outputs):
                raise GraphError(
                    f"{node.op} node {node.name!r} has no output; name one", field=f"graph.nodes[{i}].outputs"
                )
            yield from ((name, f"graph.nodes[{i}].outputs") for name in node.outputs if name)
