"""Programs of the engine as functions that JAX can trace."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from backwire_server.engine.emitted import Emitted
from backwire_server.engine.errors import EngineError, InvalidValue
from backwire_server.engine.operators import N_OUTPUTS, takes_n_outputs
from backwire_server.engine.program import Program
from backwire_server.xla import ops as _ops  # noqa: F401  # fills the table of kernels
from backwire_server.xla.registry import Fault, collecting, kernel_of, static_places

Found = dict[str, Any]

LITERAL_BYTES = 65_536
"""Constants of more bytes are arguments of what is compiled, and not copied into it."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a node's kernel does not accept: what to say of an element that is so."""

    node: Emitted
    message: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Traced:
    """All values of a program by name, and the checks of its kernels with what tells whether each holds.

    `wrong` is a vector of bools, one for each check, and `elements` has the element that each is about.
    """

    values: Found
    checks: tuple[Check, ...]
    wrong: Any
    elements: tuple[Any, ...]


def literals(program: Program) -> Found:
    """Returns the values that are compiled into a program: those known before it runs, unless they are large.

    A kernel that has to know an input gets it however large that is.
    """
    read = {node.inputs[at] for node in program.nodes for at in static_places(node.op.name) if at < len(node.inputs)}
    known = program.known.items()
    return {name: array for name, array in known if array.nbytes <= LITERAL_BYTES or name in read}


def arguments(program: Program) -> tuple[str, ...]:
    """Returns the names of the values that a compiled program is given: its feeds, and constants that are large."""
    literal = literals(program)
    made = {name for node in program.nodes for name in node.outputs}
    needed = dict.fromkeys([*program.feeds, *program.known])
    return tuple(name for name in needed if name not in literal and (name in program.feeds or name not in made))


def trace(program: Program, given: Mapping[str, Any]) -> Traced:
    """Returns all that a program computes from the values of its `arguments`.

    Raises NotTraceable naming the node when an operator cannot be traced.
    """
    literal = literals(program)
    found: Found = {"": None, **given, **literal}
    reported: list[tuple[Emitted, Fault]] = []
    for node in program.nodes:
        if not all(name in literal for name in node.outputs):
            with collecting() as new:
                results = _results(node, [found[name] for name in node.inputs])
            reported += [(node, fault) for fault in new]
            found.update(zip(node.outputs, results, strict=False))
    checks = tuple(Check(node, fault.message) for node, fault in reported)
    wrong = jnp.stack([fault.wrong for _, fault in reported]) if reported else np.zeros(0, np.bool_)
    return Traced(found, checks, wrong, tuple(fault.element for _, fault in reported))


def heed(checks: Sequence[Check], wrong: Any, elements: Sequence[Any]) -> None:
    """Raises InvalidValue naming the node for the first check that `wrong`, computed, says not to hold."""
    if checks:
        for check, fails, element in zip(checks, np.asarray(wrong), elements, strict=True):
            if fails:
                raise _within(check.node, InvalidValue(check.message(np.asarray(element)[()])))


def _results(node: Emitted, inputs: Sequence[Any]) -> tuple[Any, ...]:
    assert node.op.kernel is not None
    extra = {N_OUTPUTS: len(node.outputs)} if takes_n_outputs(node.op.kernel) else {}
    try:
        results = kernel_of(node.op.name)(*inputs, **node.attributes, **extra)
    except EngineError as error:
        raise _within(node, error) from None
    return results if isinstance(results, tuple) else (results,)


def _within(node: Emitted, error: EngineError) -> EngineError:
    return error.within(node.described, f"graph.nodes[{node.label}]")
