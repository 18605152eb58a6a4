"""The few in-place formulas that update rules share. `scratch` is overwritten; nothing is allocated."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def penalised(gradients: Array, parameters: Array, weight_decay: float, scratch: Array) -> Array:
    """The gradient plus that of the L2 penalty: `g + weight_decay * p`, in `scratch`; `gradients` itself if it is 0."""
    if weight_decay == 0:
        return gradients
    np.multiply(parameters, weight_decay, out=scratch)
    np.add(scratch, gradients, out=scratch)
    return scratch


def decay(parameters: Array, rate: float) -> None:
    """Decoupled weight decay: `p = p * (1 - rate)`."""
    if rate != 0:
        np.multiply(parameters, 1 - rate, out=parameters)


def average(mean: Array, values: Array, beta: float, scratch: Array) -> None:
    """Exponential moving average: `mean = mean + (1 - beta) * (values - mean)`."""
    np.subtract(values, mean, out=scratch)
    np.multiply(scratch, 1 - beta, out=scratch)
    np.add(mean, scratch, out=mean)


def average_square(mean: Array, values: Array, beta: float, scratch: Array) -> None:
    """Exponential moving average of squares: `mean = beta * mean + (1 - beta) * values^2`."""
    np.multiply(values, values, out=scratch)
    np.multiply(scratch, 1 - beta, out=scratch)
    np.multiply(mean, beta, out=mean)
    np.add(mean, scratch, out=mean)


def sign(values: Array) -> None:
    """`values = -1, 0 or 1`, in place. np.sign branches on every element and is four times slower on noise."""
    largest = float(np.finfo(values.dtype).max)
    np.multiply(values, largest, out=values)
    np.multiply(values, largest, out=values)  # the smallest numbers need it twice to reach 1
    np.clip(values, -1, 1, out=values)


def subtract_scaled(parameters: Array, direction: Array, rate: float, scratch: Array) -> None:
    """`p = p - rate * direction`. `direction` may be `scratch` itself."""
    np.multiply(direction, rate, out=scratch)
    np.subtract(parameters, scratch, out=parameters)


def subtract_ratio(parameters: Array, numerator: Array, denominator: Array, rate: float) -> None:
    """`p = p - rate * numerator / denominator`. `denominator` is overwritten."""
    np.divide(numerator, denominator, out=denominator)
    subtract_scaled(parameters, denominator, rate, denominator)
