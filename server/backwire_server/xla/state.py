"""Where a state lies on the device: one array for each parameter, or one for all that are treated alike."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from backwire_server.optim import FlatLayout, Rule
from backwire_server.optim.layout import Slot
from backwire_server.xla.registry import numerics
from backwire_server.xla.rules import Formula
from backwire_server.xla.sharding import Sharding

Arrays = Sequence[Any]

FLAT_BYTES = 1 << 20
"""The bytes of parameters up to which those that are treated alike are one array.

It saves what each array costs a program, and costs copies of the tensors that are cut out of a vector and of gradients
that are put into one. On a processor it makes a step of 22 parameters with 0.2 MB a third quicker, of four parameters
with 0.4 MB a twentieth, and gains nothing with 0.8 MB of them.
"""


class DeviceState(NamedTuple):
    """What a step changes, on the device: trainable parameters, and what the optimizer remembers.

    They are in the order of the optimizer, see `TracedOptimizer`: JAX takes a mapping apart anew in each call.
    """

    parameters: Arrays
    memory: Arrays


class Way(NamedTuple):
    """How some parameters are treated; what the rule remembers of them has these names."""

    rule: Rule
    factor: float
    formula: Formula
    names: tuple[str, ...]


class Piece:
    """Neighbours in a vector of the layout that are treated alike, and are one array on the device.

    Attributes:
        dtype: Their type.
        span: Where they are in the vector.
        way: How they are treated; None where they stay as they are.
    """

    def __init__(self, slots: Mapping[str, Slot], way: Way | None) -> None:
        """Takes where each parameter is, by name and in the order of the vector."""
        places = list(slots.values())
        start, stop = places[0].span.start, places[-1].span.stop
        self._slots = slots
        self._shape = places[0].shape if len(places) == 1 else (stop - start,)
        self.dtype, self.span, self.way = places[0].dtype, slice(start, stop), way

    def view(self, vector: Any) -> Any:
        """Returns the array of such a vector."""
        return vector[self.span].reshape(self._shape)

    def tensors(self, array: Any) -> dict[str, Any]:
        """Returns the parameters in the array by name; may be traced."""
        if len(self._slots) == 1:
            return dict.fromkeys(self._slots, array)
        start = self.span.start
        return {
            name: array[slot.span.start - start : slot.span.stop - start].reshape(slot.shape)
            for name, slot in self._slots.items()
        }

    def joined(self, tensors: Mapping[str, Any]) -> Any:
        """Returns the array of tensors by name, with zeros for those that are absent; may be traced."""
        if tensors.keys().isdisjoint(self._slots):
            return jnp.zeros(self._shape, self.dtype)
        found = [tensors.get(name, jnp.zeros(slot.shape, slot.dtype)) for name, slot in self._slots.items()]
        return found[0] if len(found) == 1 else jnp.concatenate([each.ravel() for each in found])


def pieces(layout: FlatLayout, ways: Mapping[str, Way], *, apart: bool) -> tuple[Piece, ...]:
    """Returns the pieces of a layout, one for each parameter if they are large or to be `apart`."""
    nbytes = sum(dtype.itemsize * size for dtype, size in layout.sizes.items())
    flat = nbytes <= FLAT_BYTES and not apart
    found = []
    for dtype in layout.sizes:
        slots = [(name, slot) for name, slot in layout.slots.items() if slot.dtype == dtype]
        for _, run in groupby(slots, lambda each: ways.get(each[0]) if flat else each[0]):
            alike = dict(run)
            found.append(Piece(alike, ways.get(next(iter(alike)))))
    return tuple(found)


def uploaded(arrays: Arrays, sharding: Sharding | None) -> tuple[Any, ...]:
    """Returns copies on the device, or on each."""
    copied = _COPIED if sharding is None else jax.jit(_copy, out_shardings=sharding.everywhere)
    with numerics():
        return tuple(jax.block_until_ready(copied(list(arrays))))


def room_for(state: DeviceState) -> DeviceState:
    """Returns memory like that of a state, with anything in it."""
    with numerics():
        return DeviceState(*(tuple(map(jnp.zeros_like, each)) for each in state))


def _copy(arrays: Arrays) -> Arrays:
    return [jnp.copy(each) for each in arrays]


_COPIED = jax.jit(_copy)
