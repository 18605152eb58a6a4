"""The program that turns what a pass kept into gradients."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from backwire_server.engine.builder import Builder
from backwire_server.engine.cost import Cost
from backwire_server.engine.derived import derived
from backwire_server.engine.differentiate import differentiate
from backwire_server.engine.graph import LOSS, Array, Graph
from backwire_server.engine.program import Program
from backwire_server.engine.runner import Runner
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.engine.values import Value

NODE_BYTES = 2_048  # what a node takes in a plan, measured: itself, its calls, its places in memory


class BackwardPlan:
    """A program that turns seeds and what a pass kept into gradients; `nbytes` is about what it holds.

    `counted` tells that its work counted when the pass was made, `names` what `run` returns.
    """

    def __init__(self, program: Program, names: Sequence[str], element_bytes: int) -> None:
        self.program = program
        self.counted = False
        self.nbytes = len(program.nodes) * NODE_BYTES + element_bytes
        self.names = tuple(names)
        self._places = {name: place for place, name in enumerate(names)}

    @derived
    def cost(self) -> Cost:
        """What a run takes that did not count before."""
        return Cost(0 if self.counted else self.program.flops, self.program.schedule.peak_bytes)

    def run(
        self,
        kept: Mapping[str, Array],
        seeds: Mapping[str, Array],
        frame: Runner | None = None,
        into: Mapping[str, Array] | None = None,
        stop: Stop = NEVER,
    ) -> dict[str, Array]:
        """Returns the gradients by name; those that do not flow are absent. With a frame, some of them go `into`."""
        values = {**kept, **{seed_name(name): seed for name, seed in seeds.items()}}
        if frame is None:
            return dict(zip(self._places, self.program.run(values, stop), strict=True))
        places = {self._places[name]: array for name, array in (into or {}).items() if name in self._places}
        return dict(zip(self._places, frame.run(values, places, stop), strict=True))


def seed_name(output: str) -> str:
    """Returns the name of the gradient that is given for an output among the feeds of a backward program."""
    return f"%gradient:{output}"


def differentiated(
    forward: Builder,
    graph: Graph,
    values: Mapping[str, Value],
    seeds: Sequence[str],
    wrt: Sequence[str],
    given: Collection[str],
    *,
    source: Program | None = None,
    stop: Stop = NEVER,
) -> BackwardPlan:
    """Returns the program for the gradients of the seeded outputs (none: of the loss) with respect to leaves.

    It computes them from the values that are `given`, and goes on from the builder of the `forward` program.
    """
    builder = forward.fork()
    of: dict[str, Value] = {}
    for name in seeds or (LOSS,):
        value = values[graph.targets([name])[name]]
        type_ = value.type
        seed = builder.leaf(seed_name(name), type_) if seeds else builder.constant(np.ones(value.sizes, type_.dtype))
        of[value.name] = of[value.name] + seed if value.name in of else seed
    present = tuple(name for name in wrt if name in builder.types)
    gradients = differentiate(builder, of, present, stop)
    flowing = {name: value.name for name, value in gradients.items() if value is not None}
    seeds_given = {seed_name(name) for name in seeds}
    program = Program(builder, tuple(flowing.values()), {*given, *seeds_given}, source=source)
    added = builder.known.keys() - forward.known.keys()
    return BackwardPlan(program, tuple(flowing), sum(builder.known[name].nbytes for name in added))
