"""Policies place every session once, as evenly as they promise, and move none that need not move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.capacity.costs import Array
from tests.capacity.placement import POLICIES, Policy, bounded_ring, random, ring, two_choices, weights

COUNTS, NODES = st.integers(1, 3_000), st.integers(1, 40)
BOUNDS = st.sampled_from([1.05, 1.25, 2.0])


def _demand(count: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(count) < 0.1, rng.random(count), 0.0)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@settings(deadline=None, max_examples=20)
@given(count=COUNTS, nodes=NODES, seed=st.integers(0, 9))
def test_every_session_has_one_node_that_lives(policy: Policy, count: int, nodes: int, seed: int) -> None:
    alive = np.sort(np.random.default_rng(seed).choice(2 * nodes, nodes, replace=False))
    placed = policy(np.arange(count), _demand(count, seed), alive, np.zeros(2 * nodes), 1.25)
    assert placed.shape == (count,)
    assert set(placed.tolist()) <= set(alive.tolist())


@settings(deadline=None, max_examples=30)
@given(count=COUNTS, nodes=NODES, bound=BOUNDS, seed=st.integers(0, 9))
def test_a_bounded_ring_keeps_its_bound_but_for_one_session(count: int, nodes: int, bound: float, seed: int) -> None:
    weight = weights(_demand(count, seed))
    placed = bounded_ring(np.arange(count), weight, np.arange(nodes), np.zeros(nodes), bound)
    load = np.bincount(placed, weights=weight, minlength=nodes)
    for node in np.flatnonzero(load > bound * load.mean()):
        assert load[node] - weight[placed == node].max() < bound * load.mean()


def test_a_ring_without_a_bound_exceeds_it() -> None:
    weight = np.ones(2_000)
    free, bound = (
        policy(np.arange(2_000), weight, np.arange(20), np.zeros(20), 1.05) for policy in (ring, bounded_ring)
    )
    assert np.bincount(free).max() > 1.05 * 100 + 1 >= np.bincount(bound).max()


@settings(deadline=None, max_examples=30)
@given(count=COUNTS, nodes=st.integers(2, 40), data=st.data())
def test_on_a_ring_a_loss_touches_the_sessions_of_the_lost_node_alone(
    count: int, nodes: int, data: st.DataObject
) -> None:
    lost = data.draw(st.integers(0, nodes - 1))
    ids, load = np.arange(count), np.zeros(nodes)
    before = ring(ids, load, np.arange(nodes), load, 1.25)
    after = ring(ids, load, np.setdiff1d(np.arange(nodes), [lost]), load, 1.25)
    assert ((before != after) == (before == lost)).all()


def test_two_choices_are_more_even_than_none() -> None:
    weight = np.ones(20_000)
    chosen, blind = (
        np.bincount(policy(np.arange(20_000), weight, np.arange(50), np.zeros(50), 1.25)).max()
        for policy in (two_choices, random)
    )
    assert chosen <= 410 < blind


def test_two_choices_avoid_a_node_that_is_busy_already() -> None:
    load = np.array([100.0, 0.0, 0.0, 0.0])
    placed = two_choices(np.arange(1_000), np.zeros(1_000), np.arange(4), load, 1.25)
    assert 0 < np.count_nonzero(placed == 0) < 120  # both choices fall on it for one in sixteen
