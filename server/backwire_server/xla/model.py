"""Models whose programs run on the devices of JAX."""

from backwire_server.engine.model import Model
from backwire_server.engine.plan import Plan
from backwire_server.engine.runner import Pool
from backwire_server.xla.running import DevicePool


class XlaModel(Model):
    """A Model that computes the same within rounding, by JAX.

    A computation that has begun is not stopped, and how long XLA compiles is not limited. What `stop` and
    `compile_seconds` end is the rest.
    """

    by_node = False

    def _new_pool(self, plan: Plan) -> Pool:
        return DevicePool(plan.program)
