"""Objective: the loss of a graph as a function of one vector."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from backwire import _variables
from backwire._arrays import Array
from backwire._builder._declare import input  # noqa: A004
from backwire._builder._functions_reduction import sum  # noqa: A004
from backwire._builder._gradient import gradient
from backwire._builder._graph import LOSS, Graph, as_graph, graph
from backwire._builder._value import Value
from backwire._client import Client
from backwire._errors import ShapeError
from backwire._errors_session import NoLossError
from backwire._session import Session
from backwire._wire._messages import Arrays
from backwire.scipy._packing import Packing, Vector

_SLOPE, _PRODUCT, _DIRECTION = "gradient of ", "product of ", "direction of "


def value_and_gradient(
    client: Client,
    formula: Graph | Value,
    inputs: Arrays | None = None,
    *,
    variables: Sequence[str] | None = None,
    start: Arrays | None = None,
    seed: int = 0,
) -> "Objective":
    """Returns the loss of a graph and its gradient as a function of one vector, computed by the server.

    It computes in eval mode, so Dropout keeps everything and running statistics stay: the same vector has the same
    value. A call is one round trip that carries the variables alone.

    Args:
        client: Where to compute.
        formula: The graph, such as `session.graph`; a scalar value stands for the graph whose loss it is.
        inputs: An array, list or number for every input that stays the same; it is sent once.
        variables: The names of parameters and inputs that the vector holds, in its order. None for all parameters that
            are not frozen, or when there are none, for the inputs that are not in `inputs`.
        start: Where to begin, for some or all variables, such as `session.parameters()`. An input whose declared shape
            has names for sizes takes its shape from here; others begin at zeros, and parameters at their first values.
        seed: What the first values of parameters are drawn from.

    Raises:
        NoLossError: The graph has no loss.
        UnknownNameError: A name is none of the graph's.
        MissingInputError: An input is neither given nor a variable.

    Example:
        >>> import backwire.scipy
        >>> w = bw.parameter("w", [0.0, 0.0], dtype="float64")
        >>> loss = bw.sum((w - [1.0, 2.0]) ** 2)
        >>> with backwire.scipy.value_and_gradient(client, loss) as f:
        ...     f([0.0, 1.0]), f.hessian_product(f.start, [1.0, 0.0])
        ((2.0, array([-2., -2.])), array([2., 0.]))
    """
    source = as_graph(formula)
    if LOSS not in source.values:
        raise NoLossError("the graph has no loss, or was not built here; make one with bw.graph(loss=...)")
    fixed = inputs or {}
    names = list(_variables.chosen(source, fixed) if variables is None else variables)
    begin = {name: np.asarray(value) for name, value in (start or {}).items()}
    begin.update(_first_values(client, source, [name for name in names if name not in begin], seed))
    return Objective(client, source, fixed, {name: begin[name] for name in names})


class Objective:
    """A function of one vector: `f(x)` is the value, and the gradient as a vector. Made by `value_and_gradient`.

    A context manager, which gives up at its end what the server holds.

    Attributes:
        start: The vector to begin with.

    Example:
        >>> import backwire.scipy, scipy.optimize
        >>> x = bw.input("x", (3,), dtype="float64")
        >>> with backwire.scipy.value_and_gradient(client, bw.sum(bw.exp(x) - 2 * x)) as f:
        ...     found = scipy.optimize.minimize(f, f.start, jac=True, hessp=f.hessian_product, method="Newton-CG")
        >>> found.x.round(6).tolist()
        [0.693147, 0.693147, 0.693147]
    """

    def __init__(self, client: Client, source: Graph, fixed: Arrays, begin: Mapping[str, Array]) -> None:
        """Makes the session that computes value and gradient; `begin` has the variables."""
        self._client, self._fixed, self._loss = client, fixed, source.value(LOSS)
        self._values = {name: source.value(name) for name in begin}
        self._packing = Packing({name: (each.dtype, begin[name].shape) for name, each in self._values.items()})
        self._slopes = gradient(self._loss, list(self._values.values()))
        self._first = self._session(self._outputs(_SLOPE, self._slopes))
        self._second: Session | None = None
        self.start = self._packing.pack(begin)

    def __call__(self, x: ArrayLike) -> tuple[float, Vector]:
        """Returns the value at x, and the gradient there, of the size of x in float64.

        Raises:
            ShapeError: x is no vector of the size of `start`.
        """
        found = self._first.forward(self._packing.unpack(x), "eval")
        assert found.loss is not None
        return found.loss, self._packed(_SLOPE, found.outputs)

    def hessian_product(self, x: ArrayLike, v: ArrayLike) -> Vector:
        """Returns the product of the Hessian at x with v (Pearlmutter 1994), for the `hessp` of `minimize`.

        Raises:
            ShapeError: x or v is no vector of the size of `start`.
            GraphError: An operator has no second gradient.
        """
        if self._second is None:
            self._second = self._session(self._products())
        directions = {_DIRECTION + name: value for name, value in self._packing.unpack(v).items()}
        at = {**self._packing.unpack(x), **directions}
        return self._packed(_PRODUCT, self._second.forward(at, "eval", outputs=self._second.outputs).outputs)

    def pack(self, values: Arrays) -> Vector:
        """Returns the vector that has these values, one for every variable."""
        return self._packing.pack(values)

    def unpack(self, x: ArrayLike) -> dict[str, Array]:
        """Returns the variables by name, such as `Session.set_parameters` takes."""
        return self._packing.unpack(x)

    def close(self) -> None:
        """Gives up what the server holds; closing again does nothing."""
        for session in (self._first, self._second):
            if session is not None:
                session.close()

    def _products(self) -> dict[str, Value]:
        """Returns the gradient of slopes times directions, which is the Hessian times the directions."""
        along = [
            sum(slope * input(_DIRECTION + name, value.shape or (), value.dtype))
            for slope, (name, value) in zip(self._slopes, self._values.items(), strict=True)
        ]
        return self._outputs(_PRODUCT, gradient(reduce(add, along), list(self._values.values())))

    def _outputs(self, prefix: str, values: Sequence[Value]) -> dict[str, Value]:
        return {prefix + name: value for name, value in zip(self._values, values, strict=True)}

    def _packed(self, prefix: str, outputs: Mapping[str, Array]) -> Vector:
        return self._packing.pack({name.removeprefix(prefix): value for name, value in outputs.items()})

    def _session(self, outputs: Mapping[str, Value]) -> Session:
        open_graph = _variables.as_inputs(graph(loss=self._loss, outputs=outputs), self._values)
        made = _variables.as_parameters(open_graph, self._fixed)
        given = [*self._values, *(_DIRECTION + name for name in self._values)]
        _variables.check_inputs(made, given)
        return self._client.create_session(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _first_values(client: Client, source: Graph, names: Sequence[str], seed: int) -> dict[str, Array]:
    """Returns zeros for inputs, and for parameters what a session of this seed draws."""
    inputs = {each.name for each in source.proto.inputs}
    found = {name: np.zeros(_sizes(source.value(name))) for name in names if name in inputs}
    drawn = [name for name in names if name not in inputs]
    if not drawn:
        return found
    with client.create_session(source, seed=seed) as session:
        return {**found, **session.parameters(drawn)}


def _sizes(value: Value) -> tuple[int, ...]:
    sizes = tuple(dim for dim in value.shape or () if isinstance(dim, int))
    if len(sizes) != len(value.shape or ()):
        raise ShapeError(f"{value!r} has no shape of its own to begin with; give an array in start=")
    return sizes
