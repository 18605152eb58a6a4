"""Positions: what tells attention, which sees a set of steps, where each of them stands in its sequence.

Where the number of steps is a name in the shape, `steps` says how many there are at most.
"""

import numpy as np

from backwire._arrays import Array
from backwire._builder import _functions_shape, _shapes
from backwire._builder._declare import parameter
from backwire._builder._initializers import Initializer, Normal
from backwire._builder._layers import known_size
from backwire._builder._value import Value, apply, as_constant, integers, require_float
from backwire._errors import ShapeError


def sinusoidal_positions(x: Value, *, steps: int | None = None, base: float = 10_000.0) -> Value:
    """Returns x [..., steps, features] plus sines and cosines of each step at many wavelengths (Vaswani et al. 2017).

    Feature 2i of step t gains sin(t / base^(2i / features)), and feature 2i + 1 the cosine.

    Example:
        >>> words = bw.input("words", ("batch", 20, 64))
        >>> bw.sinusoidal_positions(words).shape
        ('batch', 20, 64)
    """
    what = "sinusoidal_positions"
    require_float(what, x)
    features = known_size(what, x, -1)
    angles = _angles(_most_steps(what, x, steps), (features + 1) // 2, base, features)
    table = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(len(angles), -1)[:, :features]
    return x + _first_rows(as_constant(table, x.dtype), x)


def learned_positions(
    x: Value, *, name: str, steps: int | None = None, initializer: Initializer | None = None
) -> Value:
    """Returns x [..., steps, features] plus a learned vector for each step.

    Its parameter is `name/weight` [steps, features], by default `Normal(standard_deviation=0.02)`.

    Example:
        >>> words = bw.input("words", ("batch", "time", 64))
        >>> bw.learned_positions(words, name="places", steps=512).shape
        ('batch', 'time', 64)
    """
    what = f"learned_positions {name!r}"
    require_float(what, x)
    size = (_most_steps(what, x, steps), known_size(what, x, -1))
    rule = initializer or Normal(standard_deviation=0.02)
    return x + _first_rows(parameter(f"{name}/weight", size, initializer=rule, unit_axis=1, dtype=x.dtype), x)


def rotary(x: Value, *, steps: int | None = None, base: float = 10_000.0) -> Value:
    """Returns x [..., steps, size] with features turned by their step (Su et al. 2021).

    Features i and i + size/2 of step t are a point that turns by t / base^(2i / size), so that the product of two steps
    depends on how far apart they are. The size must be even.

    Example:
        >>> queries = bw.input("queries", ("batch", 4, 20, 16))
        >>> bw.rotary(queries).shape
        ('batch', 4, 20, 16)
    """
    require_float("rotary", x)
    size = known_size("rotary", x, -1)
    if size % 2:
        raise ShapeError(f"rotary: the last axis of {x!r} is odd, but features turn in pairs; use an even size")
    angles = np.tile(_angles(_most_steps("rotary", x, steps), size // 2, base, size), 2)
    cosines, sines = (_first_rows(as_constant(table, x.dtype), x) for table in (np.cos(angles), np.sin(angles)))
    a, b = _functions_shape.split(x, 2, -1)
    return x * cosines + _functions_shape.concat([-b, a], -1) * sines


def _angles(steps: int, pairs: int, base: float, features: int) -> Array:
    return np.outer(np.arange(steps), base ** (-2 * np.arange(pairs) / features))


def _most_steps(what: str, x: Value, steps: int | None) -> int:
    if _shapes.rank_of(what, x.shape) < 2:
        raise ShapeError(f"{what}: {x!r} has no axis of steps; reshape it to [..., steps, features]")
    known = (x.shape or ())[-2]
    if isinstance(known, int):
        if steps is not None and steps < known:
            raise ShapeError(f"{what}: {x!r} has more than steps={steps}; raise or leave out steps")
        return known if steps is None else steps
    if steps is None:
        raise ShapeError(f"{what}: how many steps {x!r} has is not known before Forward; give the most as steps")
    return steps


def _first_rows(table: Value, x: Value) -> Value:
    """Returns as many rows of the table as x has steps; that more are asked for than there are shows in Forward."""
    (rows, features), steps = table.shape or (None, None), (x.shape or ())[-2]
    if rows == steps:
        return table
    if isinstance(steps, int):
        return table[:steps]
    count = apply("Slice", [_functions_shape.shape(x), integers([-2]), integers([-1])], integers([0]).dtype, (1,))
    return apply("Slice", [table, integers([0]), count, integers([0])], table.dtype, (steps, features))
