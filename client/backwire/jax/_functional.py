"""functional: a graph as a pure function of its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from backwire import _variables
from backwire._builder._graph import Graph, as_graph
from backwire._builder._value import Value
from backwire._client import Client
from backwire.jax._remote import RemoteFunction, remote


class PureFunction:
    """A function of parameters and arrays that the server computes. Made by `functional`.

    Attributes:
        session: The session that computes it, for the caller to close.
    """

    def __init__(self, function: RemoteFunction) -> None:
        self.session = function.session
        self._function = function

    def __call__(self, parameters: Mapping[str, Any], *inputs: Any, **named: Any) -> Any:
        """Returns the outputs for parameters by name and inputs as `remote` takes them."""
        return self._function(*inputs, **named, **parameters)


def functional(
    client: Client,
    formula: Graph | Value,
    *,
    outputs: Sequence[str] | None = None,
    seed: int = 0,
    retain: bool = False,
) -> tuple[PureFunction, dict[str, Any]]:
    """Returns a function of parameters and inputs, and first values of the parameters, as JAX's libraries have them.

    The function takes the parameters by name, then inputs as those of `remote` do, and is differentiable by both.
    Nothing stays on the server between calls but frozen parameters; the parameters travel with every call.

    Args:
        client: Where to compute.
        formula: The graph; a scalar value stands for the graph whose loss it is.
        outputs: See `remote`.
        seed: What the first values of parameters are drawn from.
        retain: See `remote`.

    Example:
        >>> import jax, backwire.jax
        >>> x = bw.input("x", ("batch", 2))
        >>> loss = bw.mean((x @ bw.parameter("w", [1.0, 1.0]) - 3.0) ** 2)
        >>> apply, parameters = backwire.jax.functional(client, loss)
        >>> slope = jax.jit(jax.grad(apply))
        >>> for _ in range(100):
        ...     slopes = slope(parameters, [[1.0, 0.0], [0.0, 1.0]])
        ...     parameters = {name: value - 0.5 * slopes[name] for name, value in parameters.items()}
        >>> [round(value, 3) for value in parameters["w"].tolist()]
        [3.0, 3.0]
    """
    source = as_graph(formula)
    names = _variables.trainable(source)
    with client.create_session(source, seed=seed) as first:
        values = {name: jax.numpy.asarray(value) for name, value in first.parameters(names).items()} if names else {}
    open_graph = _variables.as_inputs(source, names)
    session = client.create_session(open_graph, seed=seed)
    return PureFunction(remote(session, outputs=outputs, retain=retain)), values
