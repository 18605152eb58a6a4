"""Builds graphs node by node, knowing the type of every value as it goes.

The builder is where a graph's nodes, a function's expansion and a gradient rule's formulas meet: each is a sequence of
`emit` calls. It infers types, evaluates what is known before run time, gives equal expressions one node, and puts
the operator and the shapes into the message when something does not fit.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from backwire_server.engine.dims import Dim, UnknownDimension, check_shape, product
from backwire_server.engine.emitted import Emitted, run_kernel
from backwire_server.engine.errors import EngineError, GraphError, ShapeMismatch
from backwire_server.engine.graph import Array, Attribute, DType, Node, TensorType
from backwire_server.engine.narrow import SINGLE
from backwire_server.engine.operators import BUILDER, N_OUTPUTS, Op, takes_builder, takes_n_outputs
from backwire_server.engine.precision import LOWERED, is_lowered, lowered, raised
from backwire_server.engine.registry import lookup
from backwire_server.engine.simplify import simplified
from backwire_server.engine.values import NeedsValue, O, Value

RANDOM_KEY = "%key"
RANDOM_KEY_TYPE = TensorType(np.dtype(np.uint64), (2,))
FOLD_LIMIT = 65536  # elements; larger results are computed at run time even when they could be folded
MOST_MADE = 1 << 27  # numbers that operators make while the graph is built, all together


class Builder:
    """A graph under construction.

    `training` says how Dropout and its like behave; `known` holds the elements of values that the graph is
    specialised on, so that shapes may depend on them. An `abstract` builder only checks: it leaves a type
    open where that depends on what is not known before run time. `precision` is that of the graph.
    """

    def __init__(
        self,
        *,
        training: bool,
        known: Mapping[str, Array] | None = None,
        abstract: bool = False,
        precision: DType = SINGLE,
    ) -> None:
        self.training = training
        self.abstract = abstract
        self.precision = precision
        self.nodes: list[Emitted] = []
        self.origins: dict[str, Emitted] = {}
        self.types: dict[str, TensorType | None] = {}
        self.constants: dict[str, Array] = {}
        self.known: dict[str, Array] = dict(known or {})
        self.label = ""
        self.owner = ""
        self.of = ""
        self._lowering = False
        self._count = 0
        self._made = 0
        self._scope = ""
        self._streams: dict[str, int] = {}
        self._shared: dict[Any, tuple[str, ...]] = {}

    def fork(self) -> "Builder":
        """Returns a builder that goes on from here without changing this one."""
        copy = Builder(training=self.training, known=self.known, abstract=self.abstract, precision=self.precision)
        copy.nodes, copy.types, copy.constants = list(self.nodes), dict(self.types), dict(self.constants)
        copy.origins, copy._made = dict(self.origins), self._made
        copy._shared, copy._streams, copy._count = dict(self._shared), dict(self._streams), self._count
        return copy

    def leaf(self, name: str, type_: TensorType | None) -> Value:
        """Declares a value that is given at run time."""
        self.types[name] = type_
        return Value(self, name)

    def constant(self, array: Array) -> Value:
        """Returns a value with these elements, the same one for equal arrays."""
        array = np.asarray(array)
        key = ("constant", array.dtype, array.shape, sha256(np.ascontiguousarray(array).tobytes()).digest())
        if key not in self._shared:
            name = self._fresh("constant")
            self.types[name] = TensorType(array.dtype, array.shape)
            self.constants[name] = self.known[name] = array
            self._shared[key] = (name,)
        return Value(self, self._shared[key][0])

    def make(self, count: int) -> int:
        """Returns how many numbers an operator is about to make for a constant; raises ShapeMismatch for too many."""
        self._made += count
        if self._made > MOST_MADE:
            raise ShapeMismatch(
                f"{count:,} numbers would be made before anything is computed, and a graph may have {MOST_MADE:,} such "
                "numbers; make the shapes smaller, or send the numbers as an input"
            )
        return count

    def uniform(self, shape: Sequence[Dim], dtype: DType) -> Value:
        """Returns random numbers in [0, 1) that depend on the pass's key and on where in the graph they are drawn."""
        key = Value(self, RANDOM_KEY) if RANDOM_KEY in self.types else self.leaf(RANDOM_KEY, RANDOM_KEY_TYPE)
        index = self._streams[self._scope] = self._streams.get(self._scope, -1) + 1
        stream = zlib.crc32(f"{self._scope}:{index}".encode())
        return O.RandomStream(key, shape=tuple(shape), dtype=dtype.name, stream=stream)

    def enter(self, node: Node) -> None:
        """Says which node of a graph the next operators belong to: for messages, random numbers and the precision."""
        self.label, self.of = node.label, node.op
        self._lowering = self.precision != SINGLE and node.op in LOWERED
        self._scope = self.owner = next(filter(None, node.outputs))

    def leave(self) -> None:
        """Says that the next operators belong to no node of a graph."""
        self.label = self.owner = self.of = ""
        self._lowering = False

    def emit(
        self,
        name: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, Attribute],
        n_outputs: int | None = None,
    ) -> tuple[Value, ...]:
        """Adds `name(inputs, **attributes)` and returns its outputs; raises EngineError when something does not fit."""
        context = f"{name} node {self.label!r}" if self.label else name
        try:
            op = lookup(name)
            op.check_inputs([value is not None for value in inputs])
            bound = op.bind(attributes)
            if n_outputs is not None and op.outputs and n_outputs > op.outputs:
                raise GraphError(f"has at most {op.outputs} outputs, not {n_outputs}")
            if op.expand is not None:
                return self._expand(op, op.expand, inputs, bound, n_outputs or 1)
            return self._primitive(op, inputs, bound, n_outputs)
        except EngineError as error:
            if self.label and str(error).startswith(context):
                raise
            given = ", ".join(str(self.types[value.name]) if value else "nothing" for value in inputs)
            raise error.within(f"{context} on ({given})", f"graph.nodes[{self.label}]" if self.label else "") from None
        except (TypeError, ValueError, IndexError, ArithmeticError) as error:
            wrong = GraphError(f"cannot take these inputs and attributes: {error}; see the operator's definition")
            raise wrong.within(context, f"graph.nodes[{self.label}]" if self.label else "") from error

    def _expand(
        self, op: Op, expand: Callable[..., Any], inputs: Sequence[Value | None], bound: dict[str, Any], n: int
    ) -> tuple[Value, ...]:
        try:
            if takes_n_outputs(expand):
                bound[N_OUTPUTS] = n
            if takes_builder(expand):
                bound[BUILDER] = self
            result = expand(*inputs, **bound)
        except (UnknownDimension, NeedsValue):
            if not self.abstract:
                raise
            return tuple(self.leaf(self._fresh(op.name), None) for _ in range(n))
        return result if isinstance(result, tuple) else (result,)

    def _primitive(
        self, op: Op, inputs: Sequence[Value | None], bound: dict[str, Any], n_outputs: int | None
    ) -> tuple[Value, ...]:
        if self._lowering and is_lowered(op.name, inputs):
            return raised(self._primitive(op, lowered(inputs, self.precision), bound, n_outputs))
        names = tuple(value.name if value else "" for value in inputs)
        key = (op.name, names, n_outputs, tuple(_hashable(value) for value in bound.values()))
        if key not in self._shared:
            types = self._infer(op, inputs, bound, n_outputs)
            if types[0] is not None and (simpler := simplified(self, op.name, inputs, bound, types[0])):
                self._shared[key] = (simpler.name,)
                return (simpler,)
            outputs = tuple(self._fresh(op.name) for _ in types)
            self.types.update(zip(outputs, types, strict=True))
            node = Emitted(op, names, outputs, bound, self.label, self.owner, self.of)
            if not self._fold(node, types):
                self.nodes.append(node)
                self.origins.update(dict.fromkeys(outputs, node))
            self._shared[key] = outputs
        return tuple(Value(self, name) for name in self._shared[key])

    def _infer(
        self, op: Op, inputs: Sequence[Value | None], bound: dict[str, Any], n_outputs: int | None
    ) -> tuple[TensorType | None, ...]:
        assert op.shape is not None
        extra = {N_OUTPUTS: n_outputs or 1} if takes_n_outputs(op.shape) else {}
        try:
            if any(value is not None and self.types[value.name] is None for value in inputs):
                raise NeedsValue(value.name for value in inputs if value is not None)
            types = op.shape(*inputs, **bound, **extra)
        except (UnknownDimension, NeedsValue):
            if not self.abstract:
                raise
            return (None,) * (n_outputs or 1)
        types = types if isinstance(types, tuple) else (types,)
        for each in types:
            check_shape(each.shape)
        return types if op.outputs == 0 or n_outputs is None else types[:n_outputs]

    def _fold(self, node: Emitted, types: Sequence[TensorType | None]) -> bool:
        """Evaluates the node if its inputs are known and the result is small; tells whether it is a constant now."""
        if not all(name in self.known for name in node.inputs if name):
            return False
        if any(each is None or _size(each) > FOLD_LIMIT for each in types):
            return False
        with np.errstate(all="ignore"):
            results = run_kernel(node, [self.known[name] if name else None for name in node.inputs])
        self.known.update(zip(node.outputs, results, strict=True))
        if not all(name in self.constants for name in node.inputs if name):
            return False
        self.constants.update(zip(node.outputs, results, strict=True))
        return True

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"%{self._count}:{stem}"


def _size(type_: TensorType) -> int:
    size = product(type_.shape)
    return size if isinstance(size, int) else FOLD_LIMIT + 1


def _hashable(value: Any) -> Any:
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else (type(value), value)
