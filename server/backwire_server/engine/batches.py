"""Which axis of a graph's inputs is the batch: that of the examples."""

from backwire_server.engine.dims import Symbolic, mentions, show
from backwire_server.engine.errors import NotSplittable
from backwire_server.engine.graph import Graph


def batch_of(graph: Graph) -> Symbolic:
    """Returns the symbol that the first axis of inputs has; raises NotSplittable for several, or twice in an input."""
    found: Symbolic | None = None
    for index, item in enumerate(graph.inputs):
        field = f"graph.inputs[{index}]"
        first = item.type.shape[0] if item.type.shape else 1
        if isinstance(first, Symbolic):
            if found is not None and first != found:
                raise NotSplittable(
                    f"input {item.name!r} is {item.type}, but the first axis of others is {found}; batches are cut "
                    "along the first axis, so give all inputs the same there",
                    field=field,
                )
            found = first
    if found is None:
        names = ", ".join(f"{item.name!r} is {item.type}" for item in graph.inputs) or "it has no inputs"
        raise NotSplittable(
            f"no input of the graph has a first axis of any size, along which batches could be cut ({names}); declare "
            "the inputs that examples come in with a name such as 'batch' for their first axis",
            field="graph.inputs",
        )
    for index, item in enumerate(graph.inputs):
        if sum(mentions(dim, found) for dim in item.type.shape) > 1:
            raise NotSplittable(
                f"input {item.name!r} has shape {show(item.type.shape)}, but batches are cut along {found}; make that "
                "one of its axes and no other, or train without data_parallel",
                field=f"graph.inputs[{index}]",
            )
    return found


def batched_inputs(graph: Graph, batch: Symbolic) -> tuple[str, ...]:
    """Returns the names of the inputs that have the batch as their first axis; none where one has it as another."""
    axes = batch_axes(graph, batch)
    return () if any(axes.values()) else tuple(axes)


def batch_axes(graph: Graph, batch: Symbolic) -> dict[str, int]:
    """Returns which axis of each input that has the batch as one is that."""
    return {item.name: item.type.shape.index(batch) for item in graph.inputs if batch in item.type.shape}
