"""A graph as boxes and arrows: what Forward computes, and beside it how Backward carries gradients back.

The way of the gradients is the one that the server takes: from the loss, or without one from all floating-point
outputs, through every differentiable operator that lies between it and a trainable parameter. Those that meet add up.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from backwire import _arrays
from backwire._cli import _drawing_costs
from backwire._inspection import NodeCost, OpInfo, ValueInfo
from backwire_api import tensors
from backwire_api.v1 import graph_pb2

Kind = Literal["input", "parameter", "frozen", "constant", "op", "output", "loss", "gradient", "slope"]
Way = Literal["value", "gradient", "kept", "update"]

_NABLA = "∇"
_NO_COSTS: Mapping[str, NodeCost] = {}


@dataclass(frozen=True, slots=True)
class Box:
    """Something that has or computes a value.

    Attributes:
        id: What arrows call it.
        kind: What it is; `gradient` is the backward of an operator, `slope` the gradient of a parameter.
        title: Its name, or that of its operator.
        notes: Further lines, such as the type of its value.
        beside: The box of the forward pass that it belongs to; empty for those boxes themselves.
    """

    id: str
    kind: Kind
    title: str
    notes: tuple[str, ...] = ()
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """What goes from box to box: a value, its gradient, what a pass keeps for Backward, or a parameter's new value."""

    start: str
    end: str
    way: Way = "value"
    text: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes, in the order in which they are computed, and arrows."""

    boxes: Sequence[Box]
    arrows: Sequence[Arrow]


def drawing(
    proto: graph_pb2.Graph,
    values: Mapping[str, ValueInfo],
    ops: Mapping[str, OpInfo],
    *,
    backward: bool,
    costs: Mapping[str, NodeCost] = _NO_COSTS,
) -> Drawing:
    """Returns the drawing of a graph whose values have these types, with its gradients where `backward` is set.

    `costs` says what nodes take, which operators then tell, and so do their gradients; those that are not drawn tell it
    at their operators.
    """
    forward = _Forward(proto, values, costs, alone=not backward)
    forward.draw()
    if backward:
        differentiable = {name for name, op in ops.items() if op.differentiable}
        _Backward(forward, differentiable, costs).draw()
    return Drawing(forward.boxes, forward.arrows)


@dataclass(slots=True)
class _Forward:
    proto: graph_pb2.Graph
    values: Mapping[str, ValueInfo]
    costs: Mapping[str, NodeCost]
    alone: bool
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    """The box of every value."""

    def draw(self) -> None:
        """Draws what is given, what is computed, and what is returned."""
        p = self.proto
        for index, item in enumerate(p.inputs):
            self._given(f"i{index}", "input", item.name)
        for index, parameter in enumerate(p.parameters):
            self._given(f"p{index}", "frozen" if parameter.frozen else "parameter", parameter.name)
        for index, constant in enumerate(p.constants):
            self._given(f"c{index}", "constant", constant.name, _scalar(constant))
        for index, node in enumerate(p.nodes):
            self._node(f"n{index}", node)
        for index, (name, value) in enumerate(sorted(p.outputs.items())):
            self._result(f"o{index}", "output", name, value)
        if p.loss:
            self._result("loss", "loss", "loss", p.loss)
        for name, value in sorted(p.updates.items()):
            self.arrows.append(Arrow(self.origins[value], self.origins[name], "update"))

    def type_of(self, name: str) -> str:
        """Returns dtype and shape of a value; nothing where they are not known."""
        found = self.values.get(name)
        return "" if found is None else f"{found.dtype.name}{list(found.shape)}"

    def _given(self, box: str, kind: Kind, name: str, scalar: str = "") -> None:
        self.origins[name] = box
        self.boxes.append(Box(box, kind, scalar or name, self._notes(name)))

    def _node(self, box: str, node: graph_pb2.Node) -> None:
        outputs = [name for name in node.outputs if name]
        label = () if outputs[0] == node.op else (node.name or outputs[0],)
        cost = _drawing_costs.notes(self.costs.get(outputs[0]), backward=self.alone)
        self.boxes.append(Box(box, "op", node.op, (*label, *self._notes(outputs[0]), *cost)))
        for source in sources(node):
            self.arrows.append(Arrow(self.origins[source], box))
        self.origins.update(dict.fromkeys(outputs, box))

    def _result(self, box: str, kind: Kind, name: str, value: str) -> None:
        self.boxes.append(Box(box, kind, name, self._notes(value)))
        self.arrows.append(Arrow(self.origins[value], box))

    def _notes(self, name: str) -> tuple[str, ...]:
        return tuple(filter(None, [self.type_of(name)]))


class _Backward:
    """Adds to a drawing the boxes and arrows of its gradients."""

    def __init__(self, forward: _Forward, differentiable: Collection[str], costs: Mapping[str, NodeCost]) -> None:
        self._forward = forward
        self._costs = costs
        self._nodes = [(f"n{index}", node) for index, node in enumerate(forward.proto.nodes)]
        self._differentiable = differentiable
        self._trained = {each.name for each in forward.proto.parameters if not each.frozen}

    def draw(self) -> None:
        """Draws the operators backwards, and at the end the gradients of the parameters."""
        carried = self._carried()
        fed: dict[str, list[str]] = defaultdict(list)
        for name, box in self._ends():
            fed[name].append(box)
        for box, node in reversed(self._nodes):
            inputs = [name for name in dict.fromkeys(sources(node)) if name in carried]
            if node.op not in self._differentiable or not inputs or not carried.intersection(node.outputs):
                continue
            own = f"g{box}"
            cost = _drawing_costs.gradient_notes(self._costs.get(next(filter(None, node.outputs))))
            self._forward.boxes.append(Box(own, "gradient", f"{_NABLA} {node.op}", cost, beside=box))
            self._forward.arrows.append(Arrow(box, own, "kept"))
            for name in carried.intersection(node.outputs):
                self._arrive(name, fed[name], own)
            for name in inputs:
                fed[name].append(own)
        for name in (each.name for each in self._forward.proto.parameters if each.name in carried):
            origin = self._forward.origins[name]
            own, notes = f"g{origin}", tuple(filter(None, [self._forward.type_of(name)]))
            self._forward.boxes.append(Box(own, "slope", f"{_NABLA} {name}", notes, beside=origin))
            self._arrive(name, fed[name], own)

    def _arrive(self, name: str, starts: Sequence[str], box: str) -> None:
        text = self._forward.type_of(name)
        self._forward.arrows.extend(Arrow(start, box, "gradient", text) for start in starts)

    def _carried(self) -> set[str]:
        """Returns the values that have a gradient: those between a trainable parameter and an end."""
        reached = {name for name in self._trained if self._is_float(name)}
        for _, node in self._nodes:
            if node.op in self._differentiable and reached.intersection(sources(node)):
                reached.update(name for name in node.outputs if self._is_float(name))
        wanted = {name for name, _ in self._ends()} & reached
        for _, node in reversed(self._nodes):
            if node.op in self._differentiable and wanted.intersection(node.outputs):
                wanted.update(reached.intersection(sources(node)))
        return wanted

    def _ends(self) -> Iterator[tuple[str, str]]:
        """Yields the values that gradients start from, each with the box that draws it."""
        p = self._forward.proto
        if p.loss:
            yield p.loss, "loss"
            return
        for index, (_, value) in enumerate(sorted(p.outputs.items())):
            if self._is_float(value):
                yield value, f"o{index}"

    def _is_float(self, name: str) -> bool:
        found = self._forward.values.get(name)
        return found is not None and _arrays.is_float(found.dtype)


def sources(node: graph_pb2.Node) -> list[str]:
    """Returns the values that a node depends on: its inputs, and those that a Gradient names."""
    found = [name for name in node.inputs if name]
    if node.op == "Gradient":
        found += [*node.attributes["xs"].texts.items, node.attributes["y"].text]
    return found


def _scalar(constant: graph_pb2.Constant) -> str:
    """Returns the number that a constant is; nothing for one that has dimensions."""
    return "" if constant.value.shape else f"{tensors.decode(constant.value).item():.6g}"
