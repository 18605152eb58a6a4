"""Runs the programs of a model on the devices of JAX, each compiled whole when it runs for the first time."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np

from backwire_server.engine.cost import nbytes
from backwire_server.engine.graph import Array
from backwire_server.engine.program import Program
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.xla.compiling import jitted
from backwire_server.xla.lifetimes import unbound
from backwire_server.xla.registry import numerics
from backwire_server.xla.sharding import Sharding
from backwire_server.xla.tracing import Check, arguments, heed, trace

COMPILED = "xla"

_NOTHING: Mapping[int, Array] = {}
_MUTEX = threading.Lock()


class Compiled:
    """A program as one function of JAX. For any number of threads at once.

    Attributes:
        arguments: The names of what it is given, in order.
        targets: The names of what it computes, in order: the program's targets without those that it is given.
    """

    def __init__(self, program: Program, sharding: Sharding | None = None) -> None:
        """Compiles nothing yet: that is done when it is called for the first time."""
        self._program = program.apart()
        self.arguments = arguments(program)
        held = {*program.feeds, *program.known}
        self.targets = tuple(dict.fromkeys(name for name in program.targets if name not in held))
        self._checks: Sequence[Check] = ()
        lying = sharding.of(self.arguments, program.types, None) if sharding else [None] * len(self.arguments)
        self._function = jitted(unbound(self._traced), in_shardings=lying)

    def __call__(self, values: Sequence[Any]) -> dict[str, Any]:
        """Returns the targets by name, computed, on the device; raises NotTraceable and InvalidValue naming the node.

        The values are arrays of numpy, which are copied, or of JAX.
        """
        if not self.targets:
            return {}
        with numerics():
            results, wrong, elements = self._function(*values)
        jax.block_until_ready(results)
        heed(self._checks, wrong, elements)
        return dict(zip(self.targets, results, strict=True))

    def _traced(self, *values: Any) -> tuple[list[Any], Any, tuple[Any, ...]]:
        found = trace(self._program, dict(zip(self.arguments, values, strict=True)))
        self._checks = found.checks
        return [found.values[name] for name in self.targets], found.wrong, found.elements


class DeviceRunner:
    """Runs a program; see `engine.runner.Runner`. What is kept for a later program stays on the device."""

    def __init__(self, program: Program, sharding: Sharding | None = None) -> None:
        self._program = program
        self._compiled = compiled(program, sharding)
        self._constants = {name: program.known[name] for name in self._compiled.arguments if name in program.known}
        self.kept_bytes = sum(nbytes(program.types.get(program.targets[place])) for place in program.kept)

    def run(self, values: Mapping[str, Array], into: Mapping[int, Array] = _NOTHING, stop: Stop = NEVER) -> list[Array]:
        """Returns the targets, in order; raises Stopped before anything is computed, and not later."""
        if stop.wanted:
            stop.heed()
        given = {**values, **self._constants}
        found = self._compiled([given[name] for name in self._compiled.arguments])
        everything = {**values, **self._program.known, **found}
        return [self._target(at, everything[name], into.get(at)) for at, name in enumerate(self._program.targets)]

    def _target(self, place: int, value: Any, into: Array | None) -> Array:
        if place in self._program.kept:
            return cast(Array, value)
        if into is None:
            return np.asarray(value)
        np.copyto(into, value)
        return into


class DevicePool:
    """The runners of a forward program and of the backward programs that read what it keeps; see `engine.runner`.

    They hold nothing of a pass, so that all of its passes may use them.
    """

    def __init__(self, program: Program, sharding: Sharding | None = None) -> None:
        self._sharding = sharding
        self.forward = DeviceRunner(program, sharding)

    def lease(self) -> "DevicePool":
        """Returns itself."""
        return self

    def backward(self, program: Program) -> DeviceRunner:
        """Returns the runner of a backward program."""
        return DeviceRunner(program, self._sharding)

    def clear(self) -> None:
        """Does nothing: what is compiled stays with the plan."""


def compiled(program: Program, sharding: Sharding | None = None) -> Compiled:
    """Returns the program as a function, the same one for all who ask with the same number of devices."""
    with _MUTEX:
        key = (COMPILED, sharding and sharding.count)
        found = program.compiled.get(key)
        if found is None:
            found = program.compiled[key] = Compiled(program, sharding)
        return cast(Compiled, found)
