"""Where a batch is cut into parts, and how what the parts give becomes what the batch gives.

The parts have as many examples as can be, the first ones one more than the others where they cannot be equal. Their
losses and gradients are means over their examples; weighted by how many those are, their mean is that of the batch.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from backwire_server.engine.batch_states import Mean, Mixed, Open, Rows, State
from backwire_server.engine.batches import batch_axes, batch_of
from backwire_server.engine.batching import Followed, follow
from backwire_server.engine.errors import GraphError, InvalidAttribute, NotSplittable, ShapeMismatch
from backwire_server.engine.graph import LOSS, Array, Graph, TensorType
from backwire_server.engine.narrow import single
from backwire_server.engine.stopping import NEVER, Stop

MOST_PARTS = 256

SETTLED = 64
"""For how many kinds of batches it is known what their parts give."""

REMEDY = "use data_parallel=1, or send the parts yourself as micro-batches if that is what you mean"

PROBES = 211, 223
"""For how many examples a graph is looked at: primes, as no other axis has."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class Split:
    """How batches of a graph are cut. Raises NotSplittable for a graph whose batches cannot be; see `parts`.

    Where that depends on sizes that only a batch tells, and for outputs, it is `joints` that raises.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._batch = batch_of(graph)
        self._axes = batch_axes(graph, self._batch)
        if graph.updates:
            raise NotSplittable(
                f"each pass updates parameter {next(iter(graph.updates))!r} by all examples of a batch, as batch_norm "
                "does; normalize each example by itself, such as with group_norm, or train without data_parallel",
                field="graph.updates",
            )
        self._found = follow(graph, {item.name: item.type for item in graph.inputs}, self._axes, self._batch)
        self._settled: OrderedDict[Shapes, Followed] = OrderedDict()
        self._check_loss(self._found)

    def parts(self, inputs: Mapping[str, Array], count: int) -> list[dict[str, Array]]:
        """Returns the inputs of each part: at most so many, and no more than there are examples; at least one.

        Inputs that have the batch as an axis are cut along it, without being copied if it is the first; the others are
        the same in all.
        """
        size = self.size(inputs)
        return [
            {name: _cut(array, self._axes.get(name), rows) for name, array in inputs.items()}
            for rows in _rows(size, max(1, min(count, size)))
        ]

    def size(self, inputs: Mapping[str, Array]) -> int:
        """Returns how many examples these inputs have."""
        return next((inputs[name].shape[axis] for name, axis in self._axes.items() if name in inputs), 1)

    def axis(self, name: str) -> int | None:
        """Returns which axis of an input is the batch, None for one that has no such axis."""
        return self._axes.get(name)

    def joints(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], stop: Stop = NEVER, field: str = "outputs"
    ) -> dict[str, int | None]:
        """Returns along which axis each output of parts is put together, None where it is averaged; see `joined`.

        Raises NotSplittable, with that field, where the loss or an output of parts is not that of the batch, and
        Stopped when that is wanted.
        """
        found = self._found
        targets = {name: value for name, value in self._targets(outputs).items() if value in found.states}
        if any(isinstance(found.states[value], Open) for value in targets.values()):
            found = self._settle(inputs, stop)
        self._check_loss(found)
        return {name: self._joint(name, found, targets[name], field) for name in outputs if name in targets}

    def types(self, inputs: Mapping[str, Array], stop: Stop = NEVER) -> dict[str, TensorType]:
        """Returns the type of each output that follows from these inputs, and of the loss; raises as `joints` does."""
        found, size = self._settle(inputs, stop), self.size(inputs)
        targets = self._targets(tuple(self._graph.outputs)).items()
        types = [(name, found.types.get(value), found.states.get(value)) for name, value in targets]
        return {name: _resized(type_, state, size) for name, type_, state in types if type_ is not None}

    def _targets(self, outputs: Sequence[str]) -> dict[str, str]:
        """Returns the values of the loss and of those outputs that there are; the engine tells of others."""
        known = [name for name in outputs if name in self._graph.outputs or name == LOSS]
        return self._graph.targets([*known, *([LOSS] if self._graph.loss is not None else [])])

    def _settle(self, inputs: Mapping[str, Array], stop: Stop) -> Followed:
        """Returns what is found when all sizes but that of the batch are those of these inputs."""
        key = tuple((name, self._shape(name, inputs[name].shape, 0)) for name in sorted(inputs))
        if key not in self._settled:
            found: Followed | None = None
            for count in PROBES:
                found = self._followed(inputs, count, found, stop)
            assert found is not None
            self._settled[key] = self._essence(found)
            if len(self._settled) > SETTLED:
                self._settled.popitem(last=False)
        self._settled.move_to_end(key)
        return self._settled[key]

    def _essence(self, found: Followed) -> Followed:
        """Returns what is found of the loss and of outputs alone: a graph may have very many other values."""
        names = [name for name in self._targets(tuple(self._graph.outputs)).values() if name in found.states]
        return Followed({name: found.states[name] for name in names}, {name: found.types[name] for name in names}, {})

    def _followed(self, inputs: Mapping[str, Array], count: int, other: Followed | None, stop: Stop) -> Followed:
        types = {name: TensorType(array.dtype, self._shape(name, array.shape, count)) for name, array in inputs.items()}
        try:
            return follow(self._graph, types, self._axes, count, other, stop)
        except (GraphError, InvalidAttribute, ShapeMismatch) as error:
            raise NotSplittable(f"the graph takes no batch of another size: {error}; use data_parallel=1") from error

    def _shape(self, name: str, shape: tuple[int, ...], count: int) -> tuple[int, ...]:
        axis = self._axes.get(name)
        return shape if axis is None else (*shape[:axis], count, *shape[axis + 1 :])

    def _check_loss(self, found: Followed) -> None:
        state = found.states.get(self._graph.loss) if self._graph.loss is not None else None
        if isinstance(state, Mixed):
            raise NotSplittable(
                f"{state}; parts of a batch would give another loss: {REMEDY}", field=f"graph.nodes[{state.place}]"
            )
        if isinstance(state, Open) and found is not self._found:
            raise NotSplittable(
                f"the loss {self._graph.loss!r} depends on a shape that follows from elements of the inputs, so that "
                f"it is not known what parts of a batch give: {REMEDY}",
                field="graph.loss",
            )
        if isinstance(state, Rows):
            raise NotSplittable(
                f"the loss {self._graph.loss!r} is of one example; use ReduceMean over the batch, or data_parallel=1",
                field="graph.loss",
            )

    def _joint(self, name: str, found: Followed, value: str, field: str) -> int | None:
        state, type_ = found.states[value], found.types[value]
        if isinstance(state, Rows) and state.outer == 1:
            return state.axis
        if type_ is not None and (isinstance(state, Mean) or (state is None and type_.dtype.kind not in "biu")):
            return None
        raise NotSplittable(
            f"output {name!r} is {type_ or 'of no known type'}, which cannot be put together from parts of a batch"
            f"{_because(state)}; use data_parallel=1, or give it {self._batch} as an axis",
            field=field,
        )


def _resized(type_: TensorType, state: State, size: int) -> TensorType:
    """Returns the type that a value has for so many examples, which it has for as many as were probed last."""
    if not isinstance(state, Rows):
        return type_
    shape = [int(dim) for dim in type_.shape]
    shape[state.axis] = shape[state.axis] // PROBES[-1] * size
    return TensorType(type_.dtype, tuple(shape))


def joined(axis: int | None, parts: Sequence[Array], sizes: Sequence[int]) -> Array:
    """Returns an output of the whole batch: put together along an axis, or the mean weighted by the parts' sizes."""
    return weighted_mean(parts, sizes) if axis is None else np.concatenate(parts, axis)


def weighted_mean(parts: Sequence[Array], sizes: Sequence[int]) -> Array:
    """Returns the mean of arrays of one shape, weighted by sizes, summed in their order."""
    with np.errstate(all="ignore"):
        total = single(parts[0]) * float(sizes[0])
        for part, size in zip(parts[1:], sizes[1:], strict=True):
            total += single(part) * float(size)
        return np.asarray(total / float(sum(sizes)), parts[0].dtype)


def _because(state: State) -> str:
    return f": {state}" if isinstance(state, Mixed) else ""


def _cut(array: Array, axis: int | None, rows: slice) -> Array:
    """Returns the rows along an axis, in C order as they would be sent."""
    if axis is None:
        return array
    return np.ascontiguousarray(array[(slice(None),) * axis + (rows,)])


def _rows(size: int, count: int) -> Iterator[slice]:
    least, more = divmod(size, count)
    start = 0
    for index in range(count):
        stop = start + least + (index < more)
        yield slice(start, stop)
        start = stop
