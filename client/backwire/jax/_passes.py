"""Passes: what runs on the host when a function of JAX is called, and the types of what it returns."""

import itertools
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from backwire._arrays import Array, DType
from backwire._builder._graph import LOSS, Graph
from backwire._errors import DTypeError
from backwire._forward import Forward
from backwire._session import Session
from backwire._wire import _calls_client
from backwire._wire._messages import Mode

Types = tuple[tuple[DType, tuple[int, ...]], ...]


class Passes:
    """The passes of a session under numbers, which go through JAX as arrays.

    Attributes:
        outputs: The names of the outputs that a pass returns.
    """

    def __init__(self, session: Session, graph: Graph, outputs: Sequence[str], *, retain: bool) -> None:
        """Runs passes of this session, which trains this graph; `retain` keeps each after its first backward."""
        self.outputs = tuple(outputs)
        self._session, self._graph, self._retain = session, graph, retain
        self._prefix, self._numbers = f"jax-{secrets.token_hex(4)}", itertools.count(1)
        self._types: dict[tuple[tuple[str, tuple[int, ...]], ...], Types] = {}

    def types(self, shapes: Mapping[str, tuple[int, ...]]) -> Types:
        """Returns the element types and shapes of the outputs; asks the server once for each set of input shapes.

        Raises:
            DTypeError: JAX has an element type switched off.
        """
        key = tuple(sorted(shapes.items()))
        if key not in self._types:
            found = self._session._transport.send(_calls_client.describe(self._graph, shapes), None)
            loss = found.values.get(self._graph.proto.loss)
            values = {**found.outputs, **({LOSS: loss} if loss is not None else {})}
            self._types[key] = tuple(
                (values[name].dtype, () if name == LOSS else values[name].shape) for name in self.outputs
            )
        for name, (dtype, _) in zip(self.outputs, self._types[key], strict=True):
            _check_enabled(name, dtype)
        return self._types[key]

    def evaluate(self, inputs: Mapping[str, Any]) -> tuple[Array, ...]:
        """Runs a pass in eval mode."""
        return self._forward(inputs, "eval", None)

    def begin(self, inputs: Mapping[str, Any]) -> tuple[tuple[Array, ...], Array]:
        """Runs a pass in train mode; returns its outputs and its number."""
        number = next(self._numbers)
        return self._forward(inputs, "train", self._name(number)), np.asarray(number, np.int32)

    def end(self, number: Any, cotangents: Mapping[str, Any], wrt: Sequence[str]) -> dict[str, Array]:
        """Runs a pass backwards; returns the gradients of inputs by name."""
        given = {name: np.asarray(value) for name, value in cotangents.items()}
        forward = Forward(id=self._name(int(number)), outputs=given, loss=None, step=0, session=self._session)
        return forward.backward(given, wrt, retain=self._retain)

    def _name(self, number: int) -> str:
        return f"{self._prefix}-{number}"

    def _forward(self, inputs: Mapping[str, Any], mode: Mode, forward_id: str | None) -> tuple[Array, ...]:
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        found = self._session.forward(arrays, mode, outputs=self.outputs, forward_id=forward_id)
        types = self.types({name: value.shape for name, value in arrays.items()})
        values = {**found.outputs, LOSS: found.loss}
        return tuple(np.asarray(values[name], dtype) for name, (dtype, _) in zip(self.outputs, types, strict=True))


def _check_enabled(name: str, dtype: DType) -> None:
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise DTypeError(
            f"output {name!r} is {dtype}, which JAX has switched off; set jax.config.update('jax_enable_x64', True), "
            "or convert it in the graph with bw.cast"
        )
