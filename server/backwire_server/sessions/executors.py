"""What computes a session: numpy, or JAX where that is installed."""

from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec

from backwire_server.engine.model import Model
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.sessions.errors import ExecutorUnavailable


class Executor(Enum):
    """What runs the programs of a session; the values are what settings and clients call them."""

    NUMPY = "numpy"
    JAX = "jax"


@dataclass(slots=True)
class Devices:
    """What sessions of this process that compute by JAX compute on: `count` devices, which share each batch."""

    count: int = 1


DEVICES = Devices()
"""To be set before there are sessions."""


def model_on(executor: Executor, plans: PlanCache) -> Model:
    """Returns a new model that computes by the executor.

    Raises ExecutorUnavailable when that is not installed, or has fewer devices than DEVICES says.
    """
    if executor is Executor.NUMPY:
        return Model(plans)
    check_available(executor)
    from backwire_server.xla.model import XlaModel  # it takes an extra
    from backwire_server.xla.sharding import TooFewDevices

    try:
        return XlaModel(plans, devices=DEVICES.count)
    except TooFewDevices as error:
        raise ExecutorUnavailable(
            f"the server is to split batches over {DEVICES.count} devices, and JAX finds {error.found} there; start it "
            "with a smaller --jax-devices or, to have as many on its processors, with XLA_FLAGS="
            f"--xla_force_host_platform_device_count={DEVICES.count} in its environment",
            field="executor",
        ) from None


def check_available(executor: Executor) -> None:
    """Raises ExecutorUnavailable when what the executor needs is not installed."""
    if executor is Executor.JAX and find_spec("jax") is None:
        raise ExecutorUnavailable(
            "the server cannot compute by JAX, which is not installed there; run `pip install 'backwire[jax]'` on it, "
            "or create the session with executor NUMPY",
            field="executor",
        )
