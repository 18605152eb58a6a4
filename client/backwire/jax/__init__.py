"""JAX: sessions as functions with gradients, inside `jit` and `grad`, for models that are half local and half remote.

import jax
import backwire as bw
import backwire.jax

body = backwire.jax.remote(client.create_session(graph, bw.Adam(1e-3)))  # its parameters live on the server

@jax.jit
def loss(local, x, y):
    return ((body(jax.numpy.tanh(x @ local)) - y) ** 2).mean()

gradient = jax.grad(loss)(local, x, y)

apply, parameters = backwire.jax.functional(client, graph)  # its parameters live here
loss, gradients = jax.value_and_grad(lambda parameters: apply(parameters, x).mean())(parameters)

Needs the extra `jax`, and is imported by its full name, so that `import backwire` does without.
"""

try:
    import jax as _jax  # noqa: F401 - whether it is there
except ImportError:
    raise ImportError("backwire.jax needs JAX; install it with: pip install 'backwire[jax]'") from None

from backwire.jax._functional import PureFunction, functional
from backwire.jax._remote import RemoteFunction, remote

__all__ = ["PureFunction", "RemoteFunction", "functional", "remote"]
