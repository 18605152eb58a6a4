"""Op: all that is known of an operator, and whether a node may have these inputs and attributes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import numpy as np

from backwire_server.engine.dims import Symbolic
from backwire_server.engine.errors import GraphError, InvalidAttribute
from backwire_server.engine.graph import Attribute
from backwire_server.engine.samples import Sample, drawn

Rule = Callable[..., Any]

REQUIRED = inspect.Parameter.empty
N_OUTPUTS = "n_outputs"
BUILDER = "builder"
OUT = "out"


@dataclass(slots=True)
class Op:
    """An operator. `outputs` is how many outputs a node has at most; 0 means as many as the node names.

    An `internal` one is the engine's own: gradients and functions are made of it, but a graph cannot name it. `written`
    are its samples as they are written down.
    """

    name: str
    signature: inspect.Signature
    doc: str
    written: Sequence[Sample]
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

    @property
    def samples(self) -> list[Sample]:
        """What it is tested on, always the same; drawn when it is asked for, so that a server begins without."""
        return [drawn(sample, self.name, index) for index, sample in enumerate(self.written)]

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
