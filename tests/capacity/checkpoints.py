"""How far the journals of sessions grow between checkpoints: docs/storage.md, and what the server goes by itself."""

import numpy as np
from tests.capacity.costs import Array, Costs
from tests.capacity.fleet import Fleet, Setting

from backwire_server.storage.checkpoints.pacing import SMALL_BYTES, WORTH
from backwire_server.storage.journal.journal import LONG_BYTES
from backwire_server.storage.sharing.shared_vault import REPLAY_SECONDS


def lasting(costs: Costs, setting: Setting) -> Array:
    """Returns the bytes of journal of each kind of session that lead to a checkpoint of the server's own."""
    due: Array = np.maximum(setting.checkpoint_bytes, costs.state)
    return due


def newest(costs: Costs, setting: Setting) -> Array:
    """Returns the bytes that lead to a checkpoint of any kind, passing ones too where the setting has them."""
    own = lasting(costs, setting)
    if not setting.passing:
        return own
    times, states = WORTH
    computing = np.maximum(REPLAY_SECONDS, times * costs.write)
    beside = np.where(costs.state <= SMALL_BYTES, 0, states * costs.state)
    due: Array = np.minimum(own, np.maximum(computing / costs.step * costs.batch, beside))
    return due


def before(costs: Costs, setting: Setting) -> Array:
    """Returns the most bytes of journal that are read to find where a checkpoint begins that ends no segment."""
    return np.where(newest(costs, setting) < lasting(costs, setting), LONG_BYTES, 0)


def busy(fleet: Fleet, costs: Costs, setting: Setting) -> Array:
    """Returns the cores that each session keeps busy, by its steps and its passing checkpoints."""
    passing = np.where(before(costs, setting) > 0, costs.batch / newest(costs, setting) * costs.passing, 0.0)
    return fleet.demand * (1 + (passing / costs.step)[fleet.kinds])
