"""remote: a session as a function of JAX."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.experimental import io_callback

from backwire._builder._graph import LOSS, Graph
from backwire._errors import InvalidRequestError, UnknownNameError
from backwire._info import StepResult
from backwire._session import Session
from backwire.jax._passes import Passes, Types

Arrays = dict[str, Any]


class RemoteFunction:
    """A function of arrays that a session computes. Made by `remote`.

    Attributes:
        session: The session.
    """

    def __init__(self, session: Session, graph: Graph, outputs: Sequence[str], *, retain: bool) -> None:
        self.session = session
        self._names = [each.name for each in graph.proto.inputs]
        self._function = _differentiable(Passes(session, graph, outputs, retain=retain))

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """Returns the outputs for inputs in the order of the graph, or by name: an array, or a tuple of several.

        Raises:
            InvalidRequestError: There are more arrays than inputs, or one input is given twice.
        """
        given = dict(zip(self._names, arrays, strict=False))
        if len(arrays) > len(self._names) or given.keys() & named.keys():
            listed = ", ".join(self._names) or "none"
            raise InvalidRequestError(f"it was given inputs that it has no place for; it takes each once: {listed}")
        found = self._function({name: jax.numpy.asarray(value) for name, value in {**given, **named}.items()})
        return found[0] if len(found) == 1 else found

    def step(self, learning_rate: float | None = None, **settings: Any) -> StepResult:
        """Waits for what JAX has still to run, and steps the session; arguments are those of `Session.step`."""
        jax.effects_barrier()
        return self.session.step(learning_rate, **settings)


def remote(
    session: Session, *, outputs: Sequence[str] | None = None, graph: Graph | None = None, retain: bool = False
) -> RemoteFunction:
    """Returns a function of the graph's inputs that the session computes.

    It may be jitted, and differentiated in reverse, once. A call that is not differentiated is a pass in eval mode. A
    call that is differentiated is a pass in train mode, and its way back adds the gradients of the parameters to the
    session's; `RemoteFunction.step` applies them. JAX differentiates only what depends on an argument of `jax.grad`: to
    train parameters where no input does, use `functional`. `vmap` makes one call for each example; an axis of the graph
    for them is faster.

    Args:
        session: The session, which stays the caller's to close.
        outputs: The names of outputs to return, `"loss"` among them; None for all, or the loss where there are none.
        graph: The graph that the session was created from; needed when the client attached to it by its id.
        retain: True keeps passes for more than one way back, as `jax.jacrev` and the pullback of `jax.vjp` may go,
            until they expire.

    Raises:
        InvalidRequestError: The session was attached to, and `graph` is not given.
        UnknownNameError: The graph has no output of such a name.

    Example:
        >>> import jax, backwire.jax
        >>> x = bw.input("x", ("batch", 2))
        >>> w = bw.parameter("w", [1.0, 2.0])
        >>> session = client.create_session(bw.graph(outputs={"y": x @ w}), bw.SGD(0.5))
        >>> f = backwire.jax.remote(session)
        >>> points = jax.numpy.array([[1.0, 2.0], [3.0, 4.0]])
        >>> jax.jit(jax.grad(lambda x: f(x).sum()))(points).tolist()
        [[1.0, 2.0], [1.0, 2.0]]
        >>> f.step().step, session.parameters()["w"].tolist()
        (1, [-1.0, -1.0])
    """
    known = graph or session.graph
    if known is None:
        raise InvalidRequestError(
            f"the graph of session {session.id} is not known here, since it was attached to by its id; pass graph="
        )
    chosen = list(outputs or session.outputs or [LOSS])
    for name in chosen:
        if name not in (*session.outputs, LOSS):
            raise UnknownNameError(f"the graph has no output {name!r}; it has {', '.join(session.outputs) or 'none'}")
    return RemoteFunction(session, known, chosen, retain=retain)


def _differentiable(passes: Passes) -> Callable[[Arrays], Any]:
    """Returns the function from inputs by name to the tuple of outputs."""

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def function(inputs: Arrays) -> Any:
        return jax.pure_callback(passes.evaluate, _outputs(passes, inputs), inputs, vmap_method="sequential")

    def forward(primals: Arrays) -> Any:
        inputs = {name: each.value for name, each in primals.items()}
        number = jax.ShapeDtypeStruct((), np.int32)
        outputs, number = io_callback(passes.begin, (_outputs(passes, inputs), number), inputs)
        wrt = [name for name, each in primals.items() if each.perturbed and _is_float(each.value)]
        return outputs, (number, {name: inputs[name] for name in wrt}, dict.fromkeys(inputs))

    def backward(kept: Any, cotangents: Any) -> Any:
        number, inputs, none = kept
        pairs = zip(passes.outputs, cotangents, strict=True)
        given = {name: value for name, value in pairs if not isinstance(value, SymbolicZero)}
        if not given:  # to the server, no gradients at all mean that of the loss
            return (none,)

        def end(number: Any, given: Arrays) -> Any:
            found = passes.end(number, given, list(inputs))
            return {name: value.astype(inputs[name].dtype) for name, value in found.items()}

        types = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in inputs.items()}
        return ({**none, **io_callback(end, types, number, given)},)

    function.defvjp(forward, backward, symbolic_zeros=True)
    return function  # type: ignore[no-any-return]


def _is_float(value: Any) -> bool:
    return bool(jax.numpy.issubdtype(value.dtype, np.floating))


def _outputs(passes: Passes, inputs: Arrays) -> Any:
    types: Types = passes.types({name: value.shape for name, value in inputs.items()})
    return tuple(jax.ShapeDtypeStruct(shape, dtype) for dtype, shape in types)
