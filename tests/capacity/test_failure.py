"""A loss touches the sessions of the nodes that are lost, and waiting obeys the queue."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.capacity.costs import Costs
from tests.capacity.failure import Recovery, Storage, cells, lose, queue, queues
from tests.capacity.fleet import Fleet, Setting, draw
from tests.capacity.placement import POLICIES, Policy, two_choices

NODES, SERVERS = 12, 3
SETTING = Setting(sessions_per_node=200)


def _fleet() -> Fleet:
    return draw(SETTING, NODES, np.random.default_rng(0))


def _lose(policy: Policy, lost: list[int], setting: Setting = SETTING, spare: float = 1e9) -> tuple[Fleet, Recovery]:
    fleet = _fleet()
    placed = policy(np.arange(len(fleet.kinds)), fleet.before, np.arange(NODES), np.zeros(NODES), setting.bound)
    storage = Storage(cells(NODES, SERVERS), spare)
    out = lose(fleet, placed, np.array(lost), policy, Costs(), setting, storage, np.random.default_rng(1))
    moved = out.placed != placed
    assert (moved == np.isin(placed, lost)).all()
    assert (storage.cells[placed[moved]] == storage.cells[out.placed[moved]]).all() or len(lost) == NODES // SERVERS
    return fleet, out


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_loss_touches_the_sessions_of_the_lost_nodes_alone_and_keeps_them_in_their_cell(policy: Policy) -> None:
    fleet, out = _lose(policy, [4, 5])
    assert 0 < out.opened < out.touched < len(fleet.kinds)
    assert len(out.waits) == out.opened
    assert not np.isin(out.placed, [4, 5]).any()


def test_sessions_of_a_cell_that_is_gone_come_to_others() -> None:
    _, out = _lose(two_choices, [0, 3, 6, 9])
    assert set(out.placed.tolist()) == {1, 2, 4, 5, 7, 8, 10, 11}


def test_waits_are_shorter_with_a_shorter_lease_a_smaller_journal_and_faster_storage() -> None:
    waits = [
        np.median(_lose(two_choices, [4], *changed)[1].waits)
        for changed in (
            (SETTING, 1e8),
            (SETTING, 1e9),
            (Setting(sessions_per_node=200, checkpoint_bytes=1 << 20), 1e9),
            (Setting(sessions_per_node=200, checkpoint_bytes=1 << 20, lease=0.1), 1e9),
        )
    ]
    assert waits == sorted(waits, reverse=True)
    assert len(set(waits)) == len(waits)


TIMES = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 3), st.floats(0, 3)), max_size=30)


@settings(deadline=None)
@given(TIMES)
def test_a_queue_is_as_if_each_waited_for_the_one_before(times: list[tuple[float, float, float]]) -> None:
    arrivals, seconds, _ = np.array(sorted(times)).reshape(-1, 3).T
    expected, free = [], 0.0
    for arrival, takes in zip(arrivals, seconds, strict=True):
        free = max(free, arrival) + takes
        expected.append(free)
    np.testing.assert_allclose(queue(arrivals, seconds), expected, atol=1e-9)


@settings(deadline=None)
@given(TIMES, st.integers(1, 4))
def test_places_do_not_wait_for_one_another(times: list[tuple[float, float, float]], count: int) -> None:
    arrivals, shared, alone = np.array(times).reshape(-1, 3).T
    places = np.arange(len(times)) % count
    done = queues(places, arrivals, shared, alone)
    for place in range(count):
        own = places == place
        np.testing.assert_array_equal(done[own], queues(places[own], arrivals[own], shared[own], alone[own]))
    assert (done >= arrivals + np.maximum(shared, alone) - 1e-9).all()
