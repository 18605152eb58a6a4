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
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

import numpy as np

from backwire_server.engine.dims import Symbolic
from backwire_server.engine.errors import GraphError, InvalidAttribute, UnknownOp
from backwire_server.engine.graph import Array, Attribute
from backwire_server.engine.samples import Sample, drawn

Rule = Callable[..., Any]
Call = Callable[[], Any]
Take = Callable[[Sequence[int], Any], Array]
R = TypeVar("R", bound=Rule)

REQUIRED = inspect.Parameter.empty
N_OUTPUTS = "n_outputs"
BUILDER = "builder"
OUT = "out"


@dataclass(slots=True)
class Op:
    """An operator. `outputs` is how many outputs a node has at most; 0 means as many as the node names.

    An `internal` one is the engine's own: gradients and functions are made of it, but a graph cannot name it.
    """

    name: str
    signature: inspect.Signature
    doc: str
    samples: Sequence[Sample]
    outputs: int
    internal: bool = False
    shape: Rule | None = None
    kernel: Rule | None = None
    expand: Rule | None = None
    gradient: Rule | None = None
    elementwise: bool = False
    view: Rule | None = None
    prepare: Rule | None = None
    order: Rule | None = None
    settled: Mapping[int, Rule] = field(default_factory=dict)
    reads: tuple[int, ...] = ()
    combines: Rule | None = None
    inputs: tuple[str, ...] = ()
    optional: int = 0
    variadic: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parameters = self.signature.parameters.values()
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        self.inputs = tuple(p.name for p in positional)
        self.optional = sum(p.default is not REQUIRED for p in positional)
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in (N_OUTPUTS, BUILDER, OUT)]
        self.attributes = {p.name: p.default for p in keywords}

    def check_inputs(self, present: Sequence[bool]) -> None:
        """Raises GraphError unless a node may have these inputs, told by which positions are not left out."""
        required = len(self.inputs) - self.optional
        least, most = required + (self.variadic and not self.inputs), len(self.inputs)
        needed = [*present[:required], *present[most:]]
        if not (least <= len(present) and (self.variadic or len(present) <= most) and all(needed)):
            names = ", ".join([*self.inputs, *(["..."] if self.variadic else [])])
            raise GraphError(f"takes the inputs ({names}), the first {least} required; it was given {sum(present)}")

    def bind(self, given: Mapping[str, Attribute]) -> dict[str, Attribute]:
        """Returns all attributes, defaults filled in; raises InvalidAttribute for unknown, missing or wrong ones."""
        for name in given:
            if name not in self.attributes:
                known = ", ".join(self.attributes) or "none"
                raise InvalidAttribute(f"has no attribute {name!r}; its attributes are: {known}")
        bound = {name: given.get(name, default) for name, default in self.attributes.items()}
        for name, value in bound.items():
            if value is REQUIRED:
                raise InvalidAttribute(f"needs the attribute {name!r}")
            bound[name] = _coerced(name, value, self.signature.parameters[name].annotation)
        return bound


def _coerced(name: str, value: Any, annotation: Any) -> Any:
    """Returns the value as one of the kinds that a kernel says it takes; an int may stand for a float."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if isinstance(value, list):
        value = tuple(value)
    if float in kinds and isinstance(value, int):
        return float(value)
    if any(_is(value, kind) for kind in kinds):
        return value
    told = " or ".join(str(kind) if get_args(kind) else kind.__name__ for kind in kinds if kind is not NoneType)
    raise InvalidAttribute(f"attribute {name!r} is {value!r}, but must be of kind {told}")


def _is(value: Any, kind: Any) -> bool:
    """Tells whether a value is of a kind; a dimension that is not known yet may stand for an int."""
    if kind is Any:
        return True
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is(each, get_args(kind)[0]) for each in value)
    if kind is int:
        return isinstance(value, Integral | Symbolic)
    return isinstance(value, float | int if kind is float else kind)


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


@cache
def takes_out(rule: Rule) -> bool:
    """Tells whether the kernel can leave its result in an array that it is given."""
    return isinstance(rule, np.ufunc) or OUT in inspect.signature(rule).parameters


@cache
def takes_n_outputs(rule: Rule) -> bool:
    """Tells whether the rule wants to know how many outputs the node has."""
    try:
        return N_OUTPUTS in inspect.signature(rule).parameters
    except ValueError:  # ufuncs have no signature
        return False


@cache
def takes_builder(expand: Rule) -> bool:
    """Tells whether the function wants the builder."""
    return BUILDER in inspect.signature(expand).parameters


def _add(entry: Op) -> None:
    if entry.name in OPS:
        raise AssertionError(f"op {entry.name} is defined twice")
    if not entry.doc:
        raise AssertionError(f"op {entry.name} has no documentation")
    entry.samples = [drawn(sample, entry.name, index) for index, sample in enumerate(entry.samples)]
    OPS[entry.name] = entry


def _doc(rule: Rule) -> str:
    return inspect.cleandoc(rule.__doc__ or "")
