"""An optimizer's step as a function that JAX can trace, over each parameter by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from backwire_server.optim import Clipping, FlatLayout, Optimizer, OptimizerState, Rule, Vectors, init
from backwire_server.optim.groups import treatment
from backwire_server.optim.optimizer import AVERAGE
from backwire_server.xla.rules import Figures, Formula, State, formula_of

Arrays = Sequence[Any]
Named = Mapping[str, Any]


class _Way(NamedTuple):
    """How some parameters are treated."""

    rule: Rule
    factor: float
    formula: Formula
    names: tuple[str, ...]


class TracedOptimizer:
    """The step of an optimizer; `figures` are computed before each, the rest is traced once.

    Parameters are in the order of the layout; what is remembered is in that order, too, and for each parameter in that
    of the rule's names for it.

    Attributes:
        key: The same for optimizers whose steps are traced to the same.
        names: The parameters, in order.
    """

    def __init__(self, optimizer: Optimizer, layout: FlatLayout, ways: Mapping[str, _Way]) -> None:
        """Treats the parameters that have a way in it."""
        self._optimizer = optimizer
        self._layout = layout
        self.key = replace(optimizer, learning_rate=0.0, schedule=None)
        self._ways = ways
        self._distinct = tuple(dict.fromkeys(ways.values()))
        self.names = tuple(layout.slots)
        self._remembered = [(name, each) for name in self.names for each in self._kept_of(name)]

    @classmethod
    def of(cls, optimizer: Optimizer, layout: FlatLayout) -> Self | None:
        """Returns the step of an optimizer; None where one of its rules is numpy's alone."""
        ways = {}
        for name, slot in layout.slots.items():
            if (treated := treatment(name, slot.shape, optimizer.rule, optimizer.groups)) is not None:
                rule, factor = treated
                if (formula := formula_of(rule)) is None:
                    return None
                ways[name] = _Way(rule, factor, formula, tuple(rule.init(np.empty(0, slot.dtype))))
        return cls(optimizer, layout, ways)

    def figures(self, step: int, rate: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Returns the numbers that the step with this number and learning rate is made with."""
        decay = self._optimizer.average_decay
        share = 1.0 if decay is None or step == 1 else 1 - decay
        return np.array([share, *[each for way in self._distinct for each in _figures(way, step, rate)]])

    def apply(
        self, parameters: Arrays, gradients: Named, memory: Arrays, figures: Array
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Returns new parameters and what is to be remembered of them; a gradient that is absent is zeros."""
        found = dict(zip(self.names, parameters, strict=True))
        kept: dict[str, State] = {name: {} for name in self.names}
        for (name, each), array in zip(self._remembered, memory, strict=True):
            kept[name][each] = array
        numbers, place = {}, 1
        for way in self._distinct:
            count = len(_figures(way, 1, 0.0))
            numbers[way], place = figures[place : place + count], place + count
        slopes = {name: gradients.get(name, jnp.zeros_like(found[name])) for name in self._ways}
        for name, slope in _limited(self._optimizer.clipping, slopes).items():
            way, value = self._ways[name], found[name]
            own = numbers[way].astype(value.dtype)
            found[name], new = way.formula.update(way.rule, value, slope, kept[name], *own)
            kept[name].update(new)
        if self._optimizer.average_decay is not None:
            for name, value in found.items():
                mean = kept[name][AVERAGE]
                kept[name][AVERAGE] = mean + (value - mean) * figures[0].astype(value.dtype)
        return tuple(found.values()), tuple(kept[name][each] for name, each in self._remembered)

    def ordered(self, parameters: Named) -> tuple[Any, ...]:
        """Returns parameters in their order."""
        return tuple([parameters[name] for name in self.names])

    def spread(self, state: OptimizerState) -> tuple[Any, ...]:
        """Returns views of what is remembered."""
        slots = self._layout.slots
        return tuple(slots[name].view(state[slots[name].dtype][each]) for name, each in self._remembered)

    def gathered(self, memory: Arrays) -> OptimizerState:
        """Returns what is remembered in vectors of its own, as the optimizer has it elsewhere."""
        state = init(self._optimizer, self._layout)
        for view, array in zip(self.spread(state), memory, strict=True):
            view[...] = np.asarray(array)
        return state

    def _kept_of(self, name: str) -> tuple[str, ...]:
        own = self._ways[name].names if name in self._ways else ()
        return own if self._optimizer.average_decay is None else (*own, AVERAGE)


def _figures(way: _Way, step: int, rate: float) -> Figures:
    return way.formula.figures(way.rule, step, rate * way.factor)


def packed(layout: FlatLayout, tensors: Arrays) -> Vectors:
    """Returns tensors of a device, in the order of the layout, as vectors of numpy."""
    return layout.pack(dict(zip(layout.slots, map(np.asarray, tensors), strict=True)))


def square_of(gradients: Named) -> Array:
    """Returns the square of the norm of all gradients; not finite also where only the squares leave the range."""
    return sum(map(_square, gradients.values()), jnp.zeros((), jnp.float64))


def _limited(clipping: Clipping, gradients: dict[str, Array]) -> dict[str, Array]:
    """Returns the gradients within the limits of `optim.Clipping`, in its order."""
    if clipping.value is not None:
        bound = clipping.value
        gradients = {name: jnp.clip(each, -bound, bound) for name, each in gradients.items()}
    if clipping.norm is None and clipping.global_norm is None:
        return gradients
    norms = {name: jnp.sqrt(_square(each)) for name, each in gradients.items()}
    own = {name: _shrink(norm, clipping.norm) for name, norm in norms.items()}
    whole = jnp.sqrt(sum(((own[name] * norm) ** 2 for name, norm in norms.items()), jnp.zeros((), jnp.float64)))
    common = _shrink(whole, clipping.global_norm)
    return {name: each * (own[name] * common).astype(each.dtype) for name, each in gradients.items()}


def _square(gradient: Array) -> Array:
    """Returns the square of a gradient's norm, summed as it is read.

    Squares that rules take of the same gradient are kept apart: XLA would write those of both to memory for this sum.
    """
    own = lax.optimization_barrier(gradient)
    return jnp.vdot(own, own).astype(jnp.float64)


def _shrink(length: Array, limit: float | None) -> Array:
    return jnp.ones_like(length) if limit is None else jnp.where(length <= limit, 1.0, limit / length)
