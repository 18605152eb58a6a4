"""Measures where a training pass spends its time, node by node, in the programs that a session runs."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from backwire_server.engine.backward_plan import BackwardPlan
from backwire_server.engine.cost import Admit, admit_all
from backwire_server.engine.describe import node_names
from backwire_server.engine.frame import Frame
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.memory import Workspace
from backwire_server.engine.model import Model
from backwire_server.engine.plan import Plan
from backwire_server.engine.registry import Call
from backwire_server.engine.schedule import Step
from backwire_server.engine.stopping import NEVER, Stop


@dataclass(frozen=True, slots=True)
class NodeTime:
    """The seconds that a node of the graph took, and those that its gradient did."""

    forward: float
    backward: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What passes took; each figure is the median of its own over all of them.

    Attributes:
        nodes: The time of each node, by its first output, in the order in which they run. What several nodes have in
            common is computed, and counts, at the first of them alone.
        forward_seconds: The time of Forward in train mode, with what belongs to no node.
        backward_seconds: That of Backward: of the loss, or in a graph without loss of the sum of all outputs.
    """

    nodes: dict[str, NodeTime]
    forward_seconds: float
    backward_seconds: float


def profile(
    model: Model,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Array],
    passes: int,
    *,
    key: tuple[int, int],
    reserve: Callable[[int], None] = lambda _: None,
    stop: Stop = NEVER,
    admit: Admit = admit_all,
) -> Profile:
    """Runs one pass and its gradient to warm up, and then so many that are measured; nothing given is changed.

    Of a model that does not run node by node, passes are measured as a whole. Reading the clock adds about 0.1 us to
    each kernel. `reserve` is told how many bytes a pass keeps for its gradient. Raises what `Model.forward` raises.
    """
    plan, feeds = model.compiled(inputs, parameters, key, stop)
    reserve(plan.program.schedule.kept_bytes)
    run: Callable[[], tuple[_Run, _Run]]
    if model.by_node:
        run = _Passes(plan, feeds, stop, admit)
    else:
        run = partial(_whole, model, plan, inputs, parameters, key=key, stop=stop, admit=admit)
    run()
    found = [run() for _ in range(passes)]
    nodes = {
        name: NodeTime(*(median(each[way].nodes.get(name, 0.0) for each in found) for way in (0, 1)))
        for name in node_names(model.graph)
    }
    return Profile(nodes, *(median(each[way].seconds for each in found) for way in (0, 1)))


@dataclass(frozen=True, slots=True)
class _Run:
    """The seconds that the run of a program took, and those of each owner of its nodes."""

    seconds: float = 0.0
    nodes: Mapping[str, float] = field(default_factory=dict)


class _Passes:
    """A call runs a pass and its gradient, and returns what each of them took."""

    def __init__(self, plan: Plan, feeds: Mapping[str, Array], stop: Stop, admit: Admit) -> None:
        self._plan, self._feeds, self._stop, self._admit = plan, feeds, stop, admit
        workspace = Workspace()
        self._forward = plan.program.frame_of(_TimedFrame, workspace)
        self._backward: BackwardPlan | None = None
        if plan.usual is not None:
            self._backward = plan.backward(*plan.usual, stop)
            self._back = self._backward.program.frame_of(_TimedFrame, workspace)
            self._seeds = {name: np.ones(type_.shape, type_.dtype) for name, type_ in _seeded(plan)}

    def __call__(self) -> tuple[_Run, _Run]:
        plan, backward = self._plan, self._backward
        self._admit(plan.cost)
        values: dict[str, Array] = {}
        forward = self._forward.timed(lambda: values.update(plan.run(self._feeds, self._forward, self._stop)))
        if backward is None:
            return forward, _Run()
        self._admit(backward.cost)
        kept = {**self._feeds, **{name: values[name] for name in plan.residuals}}
        run = partial(backward.run, kept, self._seeds, self._back, stop=self._stop)
        return forward, self._back.timed(run)


class _TimedFrame(Frame):
    """A frame that adds up the time of its calls by the owners of their nodes."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._seconds: dict[str, float] = defaultdict(float)

    def timed(self, run: Call) -> _Run:
        """Returns what a run of this frame took."""
        self._seconds.clear()
        begin = time.perf_counter()
        run()
        return _Run(time.perf_counter() - begin, dict(self._seconds))

    def _calls_of(self, step: Step, array_at: Callable[[int], Array | None]) -> list[Call]:
        return [partial(self._call, step.node.owner, call) for call in super()._calls_of(step, array_at)]

    def _call(self, owner: str, call: Call) -> None:
        begin = time.perf_counter()
        call()
        self._seconds[owner] += time.perf_counter() - begin


def _whole(
    model: Model,
    plan: Plan,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Array],
    *,
    key: tuple[int, int],
    stop: Stop,
    admit: Admit,
) -> tuple[_Run, _Run]:
    """Runs a pass and its gradient as a session does."""
    begin = time.perf_counter()
    found = model.forward(inputs, parameters, training=True, key=key, stop=stop, admit=admit)
    middle = time.perf_counter()
    if plan.usual is None:
        return _Run(middle - begin), _Run()
    wrt = [name for name in plan.usual[1] if name in inputs]
    seeds = {name: np.ones(type_.shape, type_.dtype) for name, type_ in _seeded(plan)}
    model.backward(found, seeds, wrt, stop=stop, admit=admit)
    return _Run(middle - begin), _Run(time.perf_counter() - middle)


def _seeded(plan: Plan) -> Iterator[tuple[str, TensorType]]:
    """Yields the outputs whose gradients the usual backward program is given; none where it begins at a loss."""
    assert plan.usual is not None
    for name in plan.usual[0]:
        type_ = plan.output_type(name)
        assert type_ is not None
        yield name, type_
