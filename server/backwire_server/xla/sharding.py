"""Batches split over several devices of JAX: each computes rows of its own, with the same parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from backwire_server.engine.batches import batch_of, batched_inputs
from backwire_server.engine.dims import concrete
from backwire_server.engine.errors import NotSplittable
from backwire_server.engine.graph import Array, Graph, TensorType
from backwire_server.xla.registry import numerics

AXIS = "batch"

Types = Mapping[str, TensorType]


class TooFewDevices(Exception):
    """JAX finds fewer devices than batches are to be split over; it finds `found`."""

    def __init__(self, found: int) -> None:
        super().__init__(f"JAX finds {found}")
        self.found = found


def devices() -> tuple[Any, ...]:
    """Returns what JAX computes on in this process; nothing where it cannot start."""
    try:
        return tuple(jax.local_devices())
    except RuntimeError:
        return ()


def gpus() -> int:
    """Returns how many GPUs JAX computes on in this process; 0 where it computes on processors or cannot start."""
    return sum(device.platform == "gpu" for device in devices())


class Sharding:
    """How the values of a graph lie on devices: batches split along their first axis, all else on each of them.

    XLA has the devices exchange what a computation over all rows takes, so that results are those of the whole batch,
    within rounding, also where a graph mixes its rows.

    Attributes:
        count: The number of devices.
        everywhere: That of an array which each device has.
        by_rows: That of an array of which each device has some rows.
    """

    def __init__(self, graph: Graph, count: int) -> None:
        """Takes the first `count` devices; raises TooFewDevices."""
        found = jax.local_devices()
        if len(found) < count:
            raise TooFewDevices(len(found))
        mesh = Mesh(np.array(found[:count]), (AXIS,))
        self.count = count
        self._batched = _batched(graph)
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.by_rows = NamedSharding(mesh, PartitionSpec(AXIS))

    @classmethod
    def over(cls, graph: Graph, count: int) -> Self | None:
        """Returns how the values lie on so many devices; None for one. Raises TooFewDevices."""
        return cls(graph, count) if count > 1 else None

    def splits(self, types: Types) -> bool:
        """Tells whether a batch among values of these types is split: it must have a multiple of rows of devices."""
        sizes = {concrete(types[name].shape)[0] for name in self._batched & types.keys()}
        return bool(sizes) and all(size and size % self.count == 0 for size in sizes)

    def of(self, names: Sequence[str], types: Types, otherwise: Any) -> list[Any]:
        """Returns how arguments of these names lie: batches that are split by rows, others as `otherwise` says."""
        batched = self._batched if self.splits(types) else frozenset()
        return [self.by_rows if name in batched else otherwise for name in names]


def sent(arrays: Mapping[str, Array], sharding: Sharding | None) -> dict[str, Any]:
    """Returns inputs of a training step where it wants them, or on their way there; they must not change meanwhile."""
    places: Any = None
    if sharding is not None:
        types = {name: TensorType(array.dtype, array.shape) for name, array in arrays.items()}
        places = sharding.of(tuple(arrays), types, sharding.everywhere)
    with numerics():
        return dict(zip(arrays, jax.device_put(list(arrays.values()), places), strict=True))


def _batched(graph: Graph) -> frozenset[str]:
    """Returns the inputs with the batch as their first axis; none for a graph of which it is not clear."""
    try:
        return frozenset(batched_inputs(graph, batch_of(graph)))
    except NotSplittable:
        return frozenset()
