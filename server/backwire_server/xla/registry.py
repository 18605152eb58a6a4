"""The table of JAX kernels, and the decorator that adds to it. Importing `xla.ops` fills it.

A JAX kernel has the signature of the operator's numpy kernel without `out`: positional inputs, keyword-only
attributes, and `n_outputs` where the numpy kernel takes it. It returns an array or a tuple of arrays of the same
shapes and dtypes, and can be traced: nothing in Python depends on elements, but for those of inputs that come as numpy
arrays. Inputs that are left out are None. It is called within `numerics()`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from backwire_server.engine.errors import InvalidValue
from backwire_server.engine.errors import NotTraceable as NotTraceable

Kernel = Callable[..., Any]
Message = Callable[[Any], str]
K = TypeVar("K", bound=Kernel)


@dataclass(frozen=True, slots=True)
class Fault:
    """What a kernel may find wrong when it runs: `wrong` is a scalar bool, `element` the scalar it is about."""

    wrong: Array
    element: Array
    message: Message

    def error(self, element: Any) -> InvalidValue:
        """Returns the error to raise when `wrong` turned out true, with what `element` turned out to be."""
        return InvalidValue(self.message(element))


_KERNELS: dict[str, Kernel] = {}
_STATIC: dict[str, tuple[int, ...]] = {}
_FAULTS: ContextVar[list[Fault] | None] = ContextVar("faults", default=None)


class numerics:  # noqa: N801  # a context, which a class makes faster than a generator does
    """A context in which JAX keeps 64-bit types and multiplies matrices in the full precision of their type."""

    __slots__ = ("_precision", "_width")

    def __init__(self) -> None:
        self._width, self._precision = jax.enable_x64(True), jax.default_matmul_precision("highest")

    def __enter__(self) -> None:
        self._width.__enter__()
        self._precision.__enter__()

    def __exit__(self, *given: Any) -> None:
        self._precision.__exit__(*given)
        self._width.__exit__(*given)


def kernel(*names: str, static: tuple[int, ...] = (), plain: tuple[int, ...] = ()) -> Callable[[K], K]:
    """Registers the decorated function as the JAX kernel of the operators.

    It is called with JAX arrays. At the places `static` it gets numpy arrays, and NotTraceable is raised where an
    element is known only when the program runs; at the places `plain` it gets numpy arrays where they are known.
    """

    def register(function: K) -> K:
        for name in names:
            if name in _KERNELS:
                raise AssertionError(f"the JAX kernel of {name} is defined twice")
            _KERNELS[name] = _converting(name, function, static, plain)
            _STATIC[name] = static
        return function

    return register


def kernel_of(name: str) -> Kernel:
    """Returns the JAX kernel of a primitive operator; raises NotTraceable when it has none."""
    try:
        return _KERNELS[name]
    except KeyError:
        raise NotTraceable(f"{name} has no JAX kernel; use the numpy executor") from None


def static_places(name: str) -> tuple[int, ...]:
    """Returns the places of the inputs that the operator's kernel takes as numpy arrays only."""
    return _STATIC.get(name, ())


@contextmanager
def collecting() -> Iterator[list[Fault]]:
    """A context that collects what the kernels called in it may find wrong, for the program to return and look at.

    Without it nothing is looked at, and an index outside is taken as the nearest one inside.
    """
    found: list[Fault] = []
    token = _FAULTS.set(found)
    try:
        yield found
    finally:
        _FAULTS.reset(token)


def refuse(wrong: Any, elements: Any, message: Message) -> None:
    """Refuses, for a kernel, the elements for which `wrong` holds: at once where they are known, else when it runs."""
    if not elements.size:
        return
    if isinstance(elements, np.ndarray):
        if np.any(wrong):
            raise InvalidValue(message(elements[np.asarray(wrong)].flat[0]))
    elif (found := _FAULTS.get()) is not None:
        first = jnp.argmax(wrong.reshape(-1))
        found.append(Fault(jnp.any(wrong), elements.reshape(-1)[first], message))


def _converting(name: str, function: Kernel, static: tuple[int, ...], plain: tuple[int, ...]) -> Kernel:
    """Returns the kernel with its inputs as it wants them."""

    def converted(place: int, each: Any) -> Any:
        if each is None or (place in plain and isinstance(each, np.ndarray)):
            return each
        if place not in static:
            return jnp.asarray(each)
        if not isinstance(each, np.ndarray):
            raise NotTraceable(f"{name} has to know input {place} before it runs; use the numpy executor")
        return each

    @wraps(function)
    def call(*inputs: Any, **options: Any) -> Any:
        return function(*(converted(place, each) for place, each in enumerate(inputs)), **options)

    return call
