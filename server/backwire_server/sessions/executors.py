"""What computes a session: numpy, or JAX where that is installed."""

from enum import Enum
from importlib.util import find_spec

from backwire_server.engine.model import Model
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.sessions.errors import ExecutorUnavailable


class Executor(Enum):
    """What runs the programs of a session; the values are what settings and clients call them."""

    NUMPY = "numpy"
    JAX = "jax"


def model_on(executor: Executor, plans: PlanCache) -> Model:
    """Returns a new model that computes by the executor; raises ExecutorUnavailable when that is not installed."""
    if executor is Executor.NUMPY:
        return Model(plans)
    check_available(executor)
    from backwire_server.xla.model import XlaModel  # it takes an extra

    return XlaModel(plans)


def check_available(executor: Executor) -> None:
    """Raises ExecutorUnavailable when what the executor needs is not installed."""
    if executor is Executor.JAX and find_spec("jax") is None:
        raise ExecutorUnavailable(
            "the server cannot compute by JAX, which is not installed there; run `pip install 'backwire[jax]'` on it, "
            "or create the session with executor NUMPY",
            field="executor",
        )
