"""Moves make the load even, and change nothing but the places of those that moved."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.capacity.failure import load_of
from tests.capacity.rebalance import EVEN, rebalance


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 400), nodes=st.integers(1, 12), most=st.integers(0, 50), seed=st.integers(0, 99))
def test_moves_keep_every_session_and_never_make_the_busiest_busier(
    count: int, nodes: int, most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    placed = rng.integers(0, nodes, count)
    demand = np.where(rng.random(count) < 0.5, rng.random(count), 0.0)
    demand[0] = 0.5
    out = rebalance(placed, demand, np.arange(nodes), most)
    changed = np.flatnonzero(out.placed != placed)
    assert len(out.sessions) <= most
    assert set(changed.tolist()) <= set(out.sessions.tolist())
    assert (demand[out.sessions] > 0).all()
    before, after = load_of(placed, demand, nodes), load_of(out.placed, demand, nodes)
    assert after.max() <= before.max() + 1e-9
    np.testing.assert_allclose(out.imbalance, after.max() / after.mean())


def test_a_crowded_node_is_emptied_until_all_are_even() -> None:
    demand = np.full(600, 0.05)
    placed = np.zeros(600, np.int64)
    out = rebalance(placed, demand, np.arange(6), 10_000)
    assert out.imbalance <= EVEN
    assert len(out.sessions) < 550  # 500 have to go


def test_the_budget_is_kept() -> None:
    out = rebalance(np.zeros(600, np.int64), np.full(600, 0.05), np.arange(6), 7)
    assert len(out.sessions) == 7
    assert np.count_nonzero(out.placed) == 7
