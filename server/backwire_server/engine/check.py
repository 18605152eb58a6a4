"""Compares analytic gradients of the loss with central differences."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backwire_server.engine.binding import bind_inputs
from backwire_server.engine.cost import Admit, admit_all
from backwire_server.engine.errors import EngineError, TooCostly
from backwire_server.engine.graph import Array, Attribute, DType, Graph, Node, TensorType
from backwire_server.engine.model import Model, Pass
from backwire_server.engine.stopping import NEVER, Stop

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
COPIES = 4  # float64 is twice as large, and one parameter at a time is copied again
_NAMES = ("to", "dtype", "softmax_precision")  # the attributes that name an element type

Key = tuple[int, int]
Ready = Callable[[], None]
Reserve = Callable[[int], None]
Remaining = Callable[[], float | None]

PROBED = 32
"""How many elements are checked before it is estimated how long all will take."""

HOPELESS = 1.5
"""How many times as long as it may take a check has to be expected to take for being refused."""


def _unlimited() -> None:
    """As a Remaining: there is no deadline."""


@dataclass(frozen=True, slots=True)
class ParameterCheck:
    """How well the gradient of a parameter and finite differences agree on the elements that were checked.

    `error` is the largest relative error, infinite where either is not finite; `index`, `gradient` and `difference`
    are those of the element that has it.
    """

    name: str
    checked: int
    error: float = 0.0
    index: tuple[int, ...] = ()
    gradient: float = 0.0
    difference: float = 0.0


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """The outcome for each parameter, the element type that was computed with, and the loss."""

    parameters: tuple[ParameterCheck, ...]
    dtype: DType
    loss: float


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which elements are checked: all of the named parameters, or `most` of each, drawn from `seed`."""

    names: Sequence[str]
    most: int
    seed: int

    def places(self, name: str, size: int) -> Array:
        """Returns the flat indices for a parameter of so many elements, sorted; they depend on its name and size."""
        draws = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return np.sort(draws.choice(size, min(size, self.most), replace=False, shuffle=False))


def widened(graph: Graph) -> Graph:
    """Returns the graph with float64 wherever it says float32."""
    return replace(
        graph,
        inputs=tuple(replace(item, type=_wide_type(item.type)) for item in graph.inputs),
        parameters=tuple(replace(item, type=_wide_type(item.type)) for item in graph.parameters),
        constants={name: wide(array) for name, array in graph.constants.items()},
        nodes=tuple(_wide_node(node) for node in graph.nodes),
    )


def wide(array: Array) -> Array:
    """Returns the array in float64 if it is float32, else as it is."""
    return array.astype(DOUBLE) if array.dtype == SINGLE else array


def check_gradients(
    graph: Graph,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Array],
    sampling: Sampling,
    *,
    key: Key,
    ready: Ready = lambda: None,
    remaining: Remaining = _unlimited,
    reserve: Reserve = lambda _: None,
    stop: Stop = NEVER,
    admit: Admit = admit_all,
    compile_seconds: float | None = None,
    make: Callable[..., Model] = Model,
) -> GradientCheck:
    """Compares the gradient of the loss with central differences, in float64 where the graph can be widened to it.

    Whatever the precision of the graph is, its products are computed in the type of their operands: differences of what
    is rounded further would tell nothing.

    Passes are made in training with this `key`, so Dropout drops the same in all of them; nothing given is changed.
    `reserve` is told how many bytes are about to be used, and `ready` is called before each pass; what they raise ends
    the check. `remaining` gives the seconds that it may still take, None for all the time of the world: TooCostly is
    raised as soon as it is clear that they do not suffice. Raises EngineError when the inputs do not fit the graph, and
    Stopped between two kernels when that is wanted. `admit` and `compile_seconds` are as in Model, which `make` is, or
    a class like it.
    """
    bind_inputs({item.name: item for item in graph.inputs}, inputs)
    reserve(COPIES * sum(array.nbytes for array in (*inputs.values(), *parameters.values())))
    try:
        model = make(widened(graph), compile_seconds=compile_seconds)
        values = {name: wide(array) for name, array in parameters.items()}
        given = {name: wide(array) for name, array in inputs.items()}
        return _Check(model, given, values, key, ready, remaining, reserve, stop, admit).run(sampling)
    except TooCostly:
        raise
    except EngineError:
        model = make(replace(graph, precision=SINGLE), compile_seconds=compile_seconds)
        return _Check(model, inputs, parameters, key, ready, remaining, reserve, stop, admit).run(sampling)


class _Check:
    def __init__(
        self,
        model: Model,
        inputs: Mapping[str, Array],
        parameters: Mapping[str, Array],
        key: Key,
        ready: Ready,
        remaining: Remaining,
        reserve: Reserve,
        stop: Stop,
        admit: Admit,
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._parameters = parameters
        self._key = key
        self._ready = ready
        self._remaining = remaining
        self._began, self._checked, self._wanted = 0.0, 0, 0
        self._reserve = reserve
        self._stop = stop
        self._admit = admit

    def run(self, sampling: Sampling) -> GradientCheck:
        found = self._pass({})
        self._reserve(2 * found.nbytes)  # this pass, and that of one element
        gradients = self._model.backward(found, stop=self._stop, admit=self._admit).parameters
        loss = _loss_of(found)
        dtypes = [self._parameters[name].dtype for name in sampling.names]
        dtype = min(dtypes, key=lambda each: each.itemsize, default=DOUBLE)
        self._wanted = sum(min(self._parameters[name].size, sampling.most) for name in sampling.names)
        self._began = time.perf_counter()
        checks = [self._parameter(name, gradients.get(name), loss, sampling) for name in sampling.names]
        return GradientCheck(tuple(checks), dtype, loss)

    def _parameter(self, name: str, gradient: Array | None, loss: float, sampling: Sampling) -> ParameterCheck:
        value = self._parameters[name]
        places = sampling.places(name, value.size)
        whole = np.zeros_like(value) if gradient is None else gradient
        analytic = whole.reshape(-1)[places].astype(DOUBLE)
        numeric = np.array([self._difference(name, int(place)) for place in places], DOUBLE)
        if not places.size:
            return ParameterCheck(name, 0)
        largest = float(np.max(np.abs(whole), initial=0.0))
        errors = _relative(analytic, numeric, _precision(value.dtype) * max(largest, abs(loss)))
        worst = int(np.argmax(errors))
        index = tuple(int(each) for each in np.unravel_index(places[worst], value.shape))
        return ParameterCheck(
            name, places.size, float(errors[worst]), index, float(analytic[worst]), float(numeric[worst])
        )

    def _difference(self, name: str, place: int) -> float:
        """Returns (f(x + h) - f(x - h)) / 2h, where h is the step that balances truncation against rounding."""
        self._estimate()
        value = self._parameters[name]
        step = _precision(value.dtype) * max(1.0, abs(float(value.flat[place])))
        points, losses = [], []
        for sign in (1, -1):
            moved = value.copy()
            moved.flat[place] += sign * step
            points.append(float(moved.flat[place]))
            losses.append(_loss_of(self._pass({name: moved})))
        self._checked += 1
        return (losses[0] - losses[1]) / (points[0] - points[1])

    def _estimate(self) -> None:
        """Raises TooCostly when what is left cannot be done in the time that is."""
        remaining = self._remaining()
        if remaining is None or self._checked < PROBED:
            return
        needed = (time.perf_counter() - self._began) / self._checked * (self._wanted - self._checked)
        if needed > HOPELESS * remaining:
            raise TooCostly(
                f"the check of {self._wanted:,} elements takes about {needed:,.0f} s more, and the call has "
                f"{remaining:,.0f} s left; check fewer elements of each parameter, or fewer parameters, or give it "
                "more time"
            )

    def _pass(self, changed: Mapping[str, Array]) -> Pass:
        self._ready()
        values = {**self._parameters, **changed}
        return self._model.forward(
            self._inputs, values, training=True, outputs=(), key=self._key, stop=self._stop, admit=self._admit
        )


def _loss_of(found: Pass) -> float:
    assert found.loss is not None
    return found.loss


def _precision(dtype: DType) -> float:
    """The cube root of the spacing of numbers near 1, the best relative step of central differences."""
    return float(np.cbrt(np.finfo(dtype).eps))


def _relative(a: Array, b: Array, least: float) -> Array:
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), least)
    with np.errstate(all="ignore"):
        errors = np.where(a == b, 0.0, np.abs(a - b) / scale)
    return np.where(np.isfinite(a) & np.isfinite(b), errors, np.inf)


def _wide_type(type_: TensorType) -> TensorType:
    return replace(type_, dtype=DOUBLE) if type_.dtype == SINGLE else type_


def _wide_node(node: Node) -> Node:
    return replace(node, attributes={name: _wide_attribute(name, value) for name, value in node.attributes.items()})


def _wide_attribute(name: str, value: Attribute) -> Attribute:
    if isinstance(value, np.ndarray):
        return wide(value)
    single: Any = {1: 11, SINGLE.name: DOUBLE.name}
    return single.get(value, value) if name in _NAMES else value
