"""Where a batch is cut into parts, and how what the parts give becomes what the batch gives.

The parts have as many examples as can be, the first ones one more than the others where they cannot be equal. Their
losses and gradients are means over their examples; weighted by how many those are, their mean is that of the batch.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from backwire_server.engine import ops as _ops  # noqa: F401  # fills the operator table
from backwire_server.engine.batches import batch_of, batched_inputs, symbols
from backwire_server.engine.builder import Builder
from backwire_server.engine.dims import Symbolic
from backwire_server.engine.errors import NotSplittable
from backwire_server.engine.graph import Array, Graph, Node, TensorType
from backwire_server.engine.replay import replay

MOST_PARTS = 256

MEANS = frozenset({"ReduceMean", "SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"})
"""What may make one value of those of all examples: their mean."""

SIZES = frozenset({"Shape", "Size"})


class Split:
    """How batches of a graph are cut. Raises NotSplittable for a graph whose batches cannot be; see `parts`."""

    def __init__(self, graph: Graph) -> None:
        self._batch = batch_of(graph)
        self._cut = batched_inputs(graph, self._batch)
        types = _types(graph)
        if graph.updates:
            raise NotSplittable(
                f"each pass updates parameter {next(iter(graph.updates))!r} by all examples of a batch, as batch_norm "
                "does; normalize each example by itself, such as with group_norm, or train without data_parallel",
                field="graph.updates",
            )
        for index, node in enumerate(graph.nodes):
            self._check(node, types, f"graph.nodes[{index}]")
        self._outputs = {name: types.get(value) for name, value in graph.outputs.items()}

    def parts(self, inputs: Mapping[str, Array], count: int) -> list[dict[str, Array]]:
        """Returns the inputs of each part: at most so many, and no more than there are examples; at least one.

        Inputs whose first axis is the batch are cut along it, without being copied; the others are the same in all.
        """
        size = self.size(inputs)
        return [
            {name: array[rows] if name in self._cut else array for name, array in inputs.items()}
            for rows in _rows(size, max(1, min(count, size)))
        ]

    def size(self, inputs: Mapping[str, Array]) -> int:
        """Returns how many examples these inputs have."""
        return next((len(inputs[name]) for name in self._cut if name in inputs), 1)

    def check_outputs(self, names: Sequence[str]) -> None:
        """Raises NotSplittable for an output that the parts of a batch do not give: see `joined`."""
        for name in names:
            if name in self._outputs and not self._joins(self._outputs[name]):  # the engine tells of other names
                raise NotSplittable(
                    f"output {name!r} is {self._outputs[name] or 'of no known type'}, which cannot be put together "
                    f"from parts of a batch; ask for it with Forward, or give it {self._batch} as its first axis",
                    field="outputs",
                )

    def joined(self, name: str, parts: Sequence[Array], sizes: Sequence[int]) -> Array:
        """Returns an output of the whole batch: rows one after another, or the mean weighted by the parts' sizes."""
        type_ = self._outputs.get(name)
        if type_ is not None and type_.shape[:1] == (self._batch,):
            return np.concatenate(parts)
        return weighted_mean(parts, sizes)

    def _joins(self, type_: TensorType | None) -> bool:
        if type_ is None:
            return False
        if _mentions(type_, self._batch):
            return type_.shape[:1] == (self._batch,)
        return np.issubdtype(type_.dtype, np.floating)

    def _check(self, node: Node, types: Mapping[str, TensorType | None], field: str) -> None:
        """Raises NotSplittable for a node that makes anything but a mean of all examples."""
        given = [types.get(name) for name in node.inputs if name]
        made = [types.get(name) for name in node.outputs if name]
        if not any(type_ and _mentions(type_, self._batch) for type_ in given):
            return
        if all(type_ is None or _mentions(type_, self._batch) for type_ in made):
            return
        if node.op in SIZES or (node.op in MEANS and node.attributes.get("reduction", "mean") == "mean"):
            return
        raise NotSplittable(
            f"{node.op} node {node.label!r} makes one result of all examples along {self._batch}, and no mean; parts "
            "of a batch would give another: use ReduceMean, or train without data_parallel",
            field=field,
        )


def weighted_mean(parts: Sequence[Array], sizes: Sequence[int]) -> Array:
    """Returns the mean of arrays of one shape, weighted by sizes, summed in their order."""
    with np.errstate(all="ignore"):
        total = parts[0] * float(sizes[0])
        for part, size in zip(parts[1:], sizes[1:], strict=True):
            total += part * float(size)
        return np.asarray(total / float(sum(sizes)), parts[0].dtype)


def _rows(size: int, count: int) -> Iterator[slice]:
    least, more = divmod(size, count)
    start = 0
    for index in range(count):
        stop = start + least + (index < more)
        yield slice(start, stop)
        start = stop


def _types(graph: Graph) -> dict[str, TensorType | None]:
    """Returns the type of each value, None where it is not known before the graph runs."""
    builder = Builder(training=True, abstract=True)
    values = {item.name: builder.leaf(item.name, item.type) for item in graph.inputs}
    values.update((item.name, builder.leaf(item.name, item.type)) for item in graph.parameters)
    values.update((name, builder.constant(array)) for name, array in graph.constants.items())
    for node in graph.topological_nodes:
        replay(builder, node, values)
    return {name: builder.types[value.name] for name, value in values.items()}


def _mentions(type_: TensorType, batch: Symbolic) -> bool:
    return any(isinstance(dim, Symbolic) and symbols(dim) & symbols(batch) for dim in type_.shape)
