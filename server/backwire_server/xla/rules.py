"""Update rules of optimizers as formulas that JAX can trace; what they mean is said where the rules are."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from backwire_server.optim import Adagrad, Adam, AdamW, Lion, RMSprop, Rule, Sgd

State = dict[str, Array]
Figures = tuple[float, ...]


class Formula(NamedTuple):
    """A rule in two halves: figures that follow from the number of the step, and an update that is traced once.

    Attributes:
        figures: Takes the rule, the number of the step and the learning rate, and returns numbers.
        update: Takes the rule, parameters, gradients, what the rule remembers and the numbers as scalars of their type;
            returns the new parameters and what to remember.
    """

    figures: Callable[[Any, int, float], Figures]
    update: Callable[..., tuple[Array, State]]


def formula_of(rule: Rule) -> Formula | None:
    """Returns the formula of a rule; None for one that only numpy knows."""
    return _FORMULAS.get(type(rule))


def _penalised(rule: Rule, p: Array, g: Array) -> Array:
    return p * rule.weight_decay + g if rule.weight_decay else g


def _average(mean: Array, values: Array, beta: float) -> Array:
    return mean + (values - mean) * (1 - beta)


def _average_square(mean: Array, values: Array, beta: float) -> Array:
    return mean * beta + values * values * (1 - beta)


def _rate_alone(_: Rule, __: int, rate: float) -> Figures:
    return (rate,)


def _sgd_figures(rule: Sgd, step: int, rate: float) -> Figures:
    return (rate, 0.0, 1.0) if step == 1 else (rate, rule.momentum, 1 - rule.dampening)


def _sgd(rule: Sgd, p: Array, g: Array, state: State, rate: Array, kept: Array, share: Array) -> tuple[Array, State]:
    direction = _penalised(rule, p, g)
    if not rule.momentum:
        return p - direction * rate, {}
    momentum = state["momentum"] * kept + direction * share
    ahead = direction + momentum * rule.momentum if rule.nesterov else momentum
    return p - ahead * rate, {"momentum": momentum}


def _lion_figures(rule: Lion, _: int, rate: float) -> Figures:
    return rate, 1 - rate * rule.weight_decay


def _lion(rule: Lion, p: Array, g: Array, state: State, rate: Array, shrink: Array) -> tuple[Array, State]:
    direction = jnp.sign((state["momentum"] - g) * rule.beta1 + g)
    return p * shrink - direction * rate, {"momentum": _average(state["momentum"], g, rule.beta2)}


def _adam_figures(rule: Adam | AdamW, step: int, rate: float) -> Figures:
    correction = math.sqrt(1 - rule.beta2**step)
    shrink = 1 - rate * rule.weight_decay if isinstance(rule, AdamW) else 1.0
    return rate * correction / (1 - rule.beta1**step), rule.epsilon * correction, shrink


def _adam(
    rule: Adam | AdamW, p: Array, g: Array, state: State, rate: Array, epsilon: Array, shrink: Array
) -> tuple[Array, State]:
    direction = _penalised(rule, p, g) if isinstance(rule, Adam) else g
    first = _average(state["first_moment"], direction, rule.beta1)
    second = _average_square(state["second_moment"], direction, rule.beta2)
    found = {"first_moment": first, "second_moment": second}
    if rule.amsgrad:
        second = found["largest_second_moment"] = jnp.maximum(second, state["largest_second_moment"])
    kept = p * shrink if isinstance(rule, AdamW) else p
    return kept - first / (jnp.sqrt(second) + epsilon) * rate, found


def _rmsprop(rule: RMSprop, p: Array, g: Array, state: State, rate: Array) -> tuple[Array, State]:
    direction = _penalised(rule, p, g)
    square = _average_square(state["mean_square"], direction, rule.decay)
    found = {"mean_square": square}
    if rule.centered:
        found["mean"] = _average(state["mean"], direction, rule.decay)
        square = jnp.maximum(square - found["mean"] * found["mean"], 0)
    move = direction / (jnp.sqrt(square) + rule.epsilon)
    if rule.momentum:
        move = found["momentum"] = state["momentum"] * rule.momentum + move
    return p - move * rate, found


def _adagrad_figures(rule: Adagrad, step: int, rate: float) -> Figures:
    return (rate / (1 + (step - 1) * rule.learning_rate_decay),)


def _adagrad(rule: Adagrad, p: Array, g: Array, state: State, rate: Array) -> tuple[Array, State]:
    direction = _penalised(rule, p, g)
    total = state["sum_of_squares"] + direction * direction
    return p - direction / (jnp.sqrt(total) + rule.epsilon) * rate, {"sum_of_squares": total}


_FORMULAS: Mapping[type[Rule], Formula] = {
    Sgd: Formula(_sgd_figures, _sgd),
    Lion: Formula(_lion_figures, _lion),
    Adam: Formula(_adam_figures, _adam),
    AdamW: Formula(_adam_figures, _adam),
    RMSprop: Formula(_rate_alone, _rmsprop),
    Adagrad: Formula(_adagrad_figures, _adagrad),
}
