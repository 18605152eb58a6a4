"""A flat list of prepared kernel calls: what a built graph becomes before it runs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from backwire_server.engine.builder import Builder, Emitted
from backwire_server.engine.errors import EngineError
from backwire_server.engine.graph import Array
from backwire_server.engine.registry import N_OUTPUTS, takes_n_outputs


class _Call(NamedTuple):
    kernel: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    finished: tuple[int, ...]  # slots that nobody reads after this call
    node: Emitted


class Program:
    """Computes `targets` of a builder's graph from values that are `given`; nodes that do not matter are left out.

    A program holds no state: any number of runs may go on at once.

    Attributes:
        feeds: The names of the given values that a run needs.
        targets: The names of the values that it computes.
        nodes: What it runs, in order.
        types: The types of all values in it.
    """

    def __init__(self, builder: Builder, targets: Sequence[str], given: Collection[str]) -> None:
        nodes, needed = _needed(builder, targets, given)
        slots: dict[str, int] = {"": 0}  # slot 0 stands for inputs that are left out
        for name in needed:
            slots.setdefault(name, len(slots))
        for node in nodes:
            for name in node.outputs:
                slots.setdefault(name, len(slots))
        self.nodes = tuple(nodes)
        self.targets = tuple(targets)
        self.types = {name: builder.types[name] for name in slots if name}
        self.feeds = tuple(name for name in needed if name not in builder.constants)
        self._feed_slots = tuple(slots[name] for name in self.feeds)
        self._target_slots = tuple(slots[name] for name in targets)
        self._initial: list[Array | None] = [None] * len(slots)
        for name in needed:
            if name in builder.constants:
                self._initial[slots[name]] = builder.constants[name]
        kept = {0, *self._target_slots, *self._feed_slots, *(slots[n] for n in needed if n in builder.constants)}
        self._calls = _schedule(nodes, slots, kept)

    def run(self, values: Mapping[str, Array]) -> tuple[Array, ...]:
        """Returns the targets, in order; raises EngineError naming the node when an element is not acceptable."""
        slots = self._initial.copy()
        for slot, name in zip(self._feed_slots, self.feeds, strict=True):
            slots[slot] = values[name]
        call = None
        try:
            with np.errstate(all="ignore"):
                for call in self._calls:
                    results = call.kernel(*[slots[index] for index in call.inputs])
                    if type(results) is tuple:
                        for index, result in zip(call.outputs, results, strict=False):
                            slots[index] = np.asarray(result)
                    else:
                        slots[call.outputs[0]] = np.asarray(results)
                    for index in call.finished:
                        slots[index] = None
        except EngineError as error:
            assert call is not None
            label = call.node.label
            raise error.within(f"{call.node.op.name} node {label!r}", f"graph.nodes[{label}]") from None
        return tuple(slots[index] for index in self._target_slots)  # type: ignore[misc]  # targets are always computed


def _needed(builder: Builder, targets: Sequence[str], given: Collection[str]) -> tuple[list[Emitted], list[str]]:
    """Returns the nodes to run, in order, and the names that they and the targets take from outside."""
    wanted = dict.fromkeys(targets)
    nodes = []
    for node in reversed(builder.nodes):
        if any(name in wanted and name not in given for name in node.outputs):
            nodes.append(node)
            wanted.update(dict.fromkeys(filter(None, node.inputs)))
    nodes.reverse()
    made = {name for node in nodes for name in node.outputs if name not in given}
    return nodes, [name for name in wanted if name not in made]


def _schedule(nodes: Sequence[Emitted], slots: Mapping[str, int], kept: Collection[int]) -> list[_Call]:
    last_use = {slots[name]: index for index, node in enumerate(nodes) for name in (*node.outputs, *node.inputs)}
    calls = []
    for index, node in enumerate(nodes):
        assert node.op.kernel is not None
        extra = {N_OUTPUTS: len(node.outputs)} if takes_n_outputs(node.op.kernel) else {}
        bound = {**node.attributes, **extra}
        kernel = partial(node.op.kernel, **bound) if bound else node.op.kernel
        touched = dict.fromkeys(slots[name] for name in (*node.inputs, *node.outputs))
        finished = tuple(slot for slot in touched if last_use[slot] == index and slot not in kept)
        inputs, outputs = (tuple(slots[name] for name in names) for names in (node.inputs, node.outputs))
        calls.append(_Call(kernel, inputs, outputs, finished, node))
    return calls
