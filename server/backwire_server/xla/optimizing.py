"""An optimizer's step as a function that JAX can trace."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from backwire_server.optim import Clipping, FlatLayout, Optimizer, OptimizerState, Vectors, init
from backwire_server.optim.groups import treatment
from backwire_server.optim.optimizer import AVERAGE
from backwire_server.xla.rules import Figures, State, formula_of
from backwire_server.xla.state import Arrays, Piece, Way, pieces


class TracedOptimizer:
    """The step of an optimizer; `figures` are computed before each, the rest is traced once.

    Parameters are arrays in the order of its pieces; what is remembered is in that order, too, and for each piece in
    that of the rule's names for it.

    Attributes:
        key: The same for optimizers whose steps are traced to the same.
        names: The parameters, in the order of the layout.
        types: An array for each parameter by name, of its shape and type and with any elements.
    """

    def __init__(self, optimizer: Optimizer, layout: FlatLayout, ways: Mapping[str, Way]) -> None:
        """Treats the parameters that have a way in it."""
        self._optimizer = optimizer
        self._layout = layout
        self.key = replace(optimizer, learning_rate=0.0, schedule=None)
        self._distinct = tuple(dict.fromkeys(ways.values()))
        self.names = tuple(layout.slots)
        self.types = {
            name: np.broadcast_to(np.zeros((), slot.dtype), slot.shape) for name, slot in layout.slots.items()
        }
        self._pieces = pieces(layout, ways, apart=optimizer.clipping.norm is not None)
        self._remembered = [(piece, name) for piece in self._pieces for name in self._kept_of(piece)]

    @classmethod
    def of(cls, optimizer: Optimizer, layout: FlatLayout) -> Self | None:
        """Returns the step of an optimizer; None where one of its rules is numpy's alone."""
        ways = {}
        for name, slot in layout.slots.items():
            if (treated := treatment(name, slot.shape, optimizer.rule, optimizer.groups)) is not None:
                rule, factor = treated
                if (formula := formula_of(rule)) is None:
                    return None
                ways[name] = Way(rule, factor, formula, tuple(rule.init(np.empty(0, slot.dtype))))
        return cls(optimizer, layout, ways)

    def figures(self, step: int, rate: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Returns the numbers that the step with this number and learning rate is made with."""
        decay = self._optimizer.average_decay
        share = 1.0 if decay is None or step == 1 else 1 - decay
        return np.array([share, *[each for way in self._distinct for each in _figures(way, step, rate)]])

    def tensors(self, parameters: Arrays) -> dict[str, Any]:
        """Returns parameters by name; may be traced, as `joined` and `apply`."""
        pairs = zip(self._pieces, parameters, strict=True)
        return {name: tensor for piece, array in pairs for name, tensor in piece.tensors(array).items()}

    def joined(self, gradients: Mapping[str, Any]) -> list[Any]:
        """Returns gradients by name as arrays; one that is absent is zeros."""
        return [piece.joined(gradients) for piece in self._pieces]

    def apply(
        self, parameters: Arrays, gradients: Arrays, memory: Arrays, figures: Array
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Returns new parameters and what is to be remembered of them."""
        kept: dict[Piece, State] = {piece: {} for piece in self._pieces}
        for (piece, name), array in zip(self._remembered, memory, strict=True):
            kept[piece][name] = array
        numbers, place = {}, 1
        for way in self._distinct:
            count = len(_figures(way, 1, 0.0))
            numbers[way], place = figures[place : place + count], place + count
        found = dict(zip(self._pieces, parameters, strict=True))
        slopes = dict(zip(self._pieces, gradients, strict=True))
        ways = {piece: piece.way for piece in self._pieces if piece.way is not None}
        limited = _limited(self._optimizer.clipping, {piece: slopes[piece] for piece in ways})
        for piece, way in ways.items():
            slope, value = limited[piece], found[piece]
            own = numbers[way].astype(value.dtype)
            found[piece], new = way.formula.update(way.rule, value, slope, kept[piece], *own)
            kept[piece].update(new)
        if self._optimizer.average_decay is not None:
            for piece, value in found.items():
                mean = kept[piece][AVERAGE]
                kept[piece][AVERAGE] = mean + (value - mean) * figures[0].astype(value.dtype)
        return tuple(found.values()), tuple(kept[piece][name] for piece, name in self._remembered)

    def arrays(self, parameters: Vectors) -> tuple[Any, ...]:
        """Returns views of parameters."""
        return tuple(piece.view(parameters[piece.dtype]) for piece in self._pieces)

    def spread(self, state: OptimizerState) -> tuple[Any, ...]:
        """Returns views of what is remembered."""
        return tuple(piece.view(state[piece.dtype][name]) for piece, name in self._remembered)

    def packed(self, parameters: Arrays) -> Vectors:
        """Returns parameters in vectors of numpy."""
        vectors = self._layout.zeros()
        for view, array in zip(self.arrays(vectors), parameters, strict=True):
            view[...] = np.asarray(array)
        return vectors

    def gathered(self, memory: Arrays) -> OptimizerState:
        """Returns what is remembered in vectors of its own, as the optimizer has it elsewhere."""
        state = init(self._optimizer, self._layout)
        for view, array in zip(self.spread(state), memory, strict=True):
            view[...] = np.asarray(array)
        return state

    def _kept_of(self, piece: Piece) -> tuple[str, ...]:
        own = () if piece.way is None else piece.way.names
        return own if self._optimizer.average_decay is None else (*own, AVERAGE)


def _figures(way: Way, step: int, rate: float) -> Figures:
    return way.formula.figures(way.rule, step, rate * way.factor)


def square_of(gradients: Arrays) -> Array:
    """Returns the square of the norm of all gradients; not finite also where only the squares leave the range."""
    return sum(map(_square, gradients), jnp.zeros((), jnp.float64))


def _limited(clipping: Clipping, gradients: dict[Piece, Array]) -> dict[Piece, Array]:
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
