"""The table of operators, and the decorators that add to it.

An operator is either *primitive* (`@op`: a numpy kernel, a shape rule and, with `@gradient`, a gradient rule) or a
*function* of simpler ones (`@function`), whose shape and gradient follow from theirs.

The signature of the kernel is the operator's: positional parameters are its inputs, those with a default are optional,
a starred one takes any number; keyword-only parameters are its attributes, required when they have no default. A rule
that names a keyword-only parameter `n_outputs` is told how many outputs the node has; a function that names `builder`
is given the builder, for results that need no input to grow from.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from backwire_server.engine.errors import UnknownOp
from backwire_server.engine.graph import Array
from backwire_server.engine.operators import Op, Rule
from backwire_server.engine.samples import Sample

Call = Callable[[], Any]
Take = Callable[[Sequence[int], Any], Array]
R = TypeVar("R", bound=Rule)


OPS: dict[str, Op] = {}


def lookup(name: str) -> Op:
    """Returns the operator; raises UnknownOp when there is none of that name."""
    try:
        return OPS[name]
    except KeyError:
        near = difflib.get_close_matches(name, (each.name for each in OPS.values() if not each.internal), 3)
        remedy = f"did you mean {' or '.join(near)}?" if near else "use an operator of ONNX's"
        raise UnknownOp(f"there is no op {name!r}; {remedy}") from None


def op(
    name: str,
    *,
    shape: Rule,
    samples: Sequence[Sample],
    outputs: int = 1,
    internal: bool = False,
    elementwise: bool = False,
    view: Rule | None = None,
) -> Callable[[R], R]:
    """Registers the decorated kernel, numpy arrays in and out, as a primitive operator.

    `shape` takes the inputs as `Value`s and the attributes, and returns the TensorType of the output, or a tuple.
    A kernel of one output may take a keyword `out`: None, or the array to leave the result in. An `elementwise` one
    finds each element of the result from the elements of the inputs at its place alone, so `out` may be one of the
    inputs. With `view` the kernel returns a view of its first input where `view(x, shape of the result)` says so.
    """

    def register(kernel: R) -> R:
        entry = Op(name, inspect.signature(kernel), _doc(kernel), samples, outputs, internal, shape, kernel)
        entry.elementwise, entry.view = elementwise, view
        _add(entry)
        return kernel

    return register


def function(name: str, *, samples: Sequence[Sample], outputs: int = 1) -> Callable[[R], R]:
    """Registers the decorated function, which builds its result from `Value`s, as an operator."""

    def register(expand: R) -> R:
        _add(Op(name, inspect.signature(expand), _doc(expand), samples, outputs, expand=expand))
        return expand

    return register


def gradient(name: str) -> Callable[[R], R]:
    """Registers the decorated gradient rule of a primitive operator.

    It is called with the gradient of the output, the output and the inputs, all `Value`s, and the attributes; tuples of
    them for operators with several outputs (a gradient that does not flow is None). It returns the gradient of each
    input, None where none flows; the builder undoes broadcasting.
    """

    def register(rule: R) -> R:
        OPS[name].gradient = rule
        return rule

    return register


def prepared(
    name: str,
    *,
    order: Rule | None = None,
    settled: Mapping[int, Rule] | None = None,
    reads: tuple[int, ...] = (),
    combines: Rule | None = None,
) -> Callable[[R], R]:
    """Registers how a primitive operator of one output is made ready to run many times on the same arrays.

    The decorated rule is called with the array for the output, the arrays of the inputs, `take` and the attributes, and
    returns the calls to make, in order, without arguments. `take(shape, dtype)` gives an array to work in. The rule
    must go by shapes and strides alone: it is also called before there are any elements, except those of the inputs at
    the places `reads`; where these are not constant the kernel is called instead. `order` takes inputs and attributes
    and returns how the result lies in memory: its axes, the outermost first, or None for C order. Where an
    input at a place in `settled` is given anew for each run, it is copied first, so that the calls last; the rule there
    takes the input and returns how the copy lies in memory. `combines`, for an operator that works row by row, takes
    inputs and attributes and returns along which axes of the first input elements are combined, and whether the result
    has all axes.
    """

    def register(rule: R) -> R:
        entry = OPS[name]
        entry.prepare, entry.order, entry.settled = rule, order, settled or {}
        entry.reads, entry.combines = reads, combines
        return rule

    return register


def elementwise(
    name: str, ufunc: Rule, *, arity: int, shape: Rule, doc: str, samples: Sequence[Sample], gradient: Rule | None
) -> None:
    """Registers an operator that is just a numpy ufunc of one or two inputs: a line in a table of formulas."""
    names = ("x",) if arity == 1 else ("a", "b")
    parameters = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in names]
    signature = inspect.Signature(parameters)
    _add(Op(name, signature, doc, samples, 1, shape=shape, kernel=ufunc, gradient=gradient, elementwise=True))


def stored(result: Array, out: Array | None) -> Array:
    """Returns the result, in `out` if that is given: for a kernel that cannot compute in place."""
    if out is None:
        return result
    np.copyto(out, result)
    return out


def _add(entry: Op) -> None:
    if entry.name in OPS:
        raise AssertionError(f"op {entry.name} is defined twice")
    if not entry.doc:
        raise AssertionError(f"op {entry.name} has no documentation")
    OPS[entry.name] = entry


def _doc(rule: Rule) -> str:
    return inspect.cleandoc(rule.__doc__ or "")
