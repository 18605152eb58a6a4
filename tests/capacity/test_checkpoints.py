"""Passing checkpoints shorten what is replayed, as the server makes them, and take little for it."""

import numpy as np
from tests.capacity.checkpoints import before, busy, lasting, newest
from tests.capacity.costs import Costs
from tests.capacity.fleet import Setting, draw
from tests.capacity.storage import traffic

from backwire_server.storage.checkpoints.pacing import WORTH
from backwire_server.storage.sharing.shared_vault import REPLAY_SECONDS

PASSING, PLAIN = Setting(sessions_per_node=200), Setting(sessions_per_node=200, passing=False)


def test_passing_checkpoints_are_as_far_apart_as_the_server_has_it_or_not_made() -> None:
    costs = Costs()
    steps = newest(costs, PASSING) / costs.batch
    _, states = WORTH
    made = newest(costs, PASSING) < lasting(costs, PASSING)
    assert made.tolist() == [True, True, False], (
        "four states of L are more than leads to a checkpoint of the server's own"
    )
    assert (steps * costs.step >= REPLAY_SECONDS - 1e-9).all()
    assert (newest(costs, PASSING)[made] >= states * costs.state[made]).all()
    np.testing.assert_array_equal(newest(costs, PLAIN), lasting(costs, PLAIN))
    assert not before(costs, PLAIN).any()


def test_passing_checkpoints_take_little_of_processors_and_storage() -> None:
    costs, nodes = Costs(), 20
    fleet = draw(PASSING, nodes, np.random.default_rng(0))
    plain, passing = (traffic(fleet, costs, setting, nodes) for setting in (PLAIN, PASSING))
    _, states = WORTH
    assert plain.bandwidth < passing.bandwidth < plain.bandwidth + plain.journal / states
    assert (plain.operations["pass"], plain.files) == (0, passing.files - 3 * int(fleet.active.sum()))
    assert 0 < passing.operations["pass"] < passing.operations["fence"]
    np.testing.assert_array_equal(busy(fleet, costs, PLAIN), fleet.demand)
    assert fleet.demand.sum() < busy(fleet, costs, PASSING).sum() < 1.2 * fleet.demand.sum()
