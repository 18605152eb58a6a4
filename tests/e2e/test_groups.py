"""Sessions of a server that groups them train at the same time to what each is alone, within rounding."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import backwire as bw

pytest.importorskip("jax")

COUNT, STEPS = 8, 4


def network() -> bw.Graph:
    x, t = bw.input("x", ("batch", 4)), bw.input("t", ("batch",), dtype="int64")
    hidden = bw.relu(bw.dense(x, 8, name="hidden"))
    return bw.graph(loss=bw.softmax_cross_entropy(bw.dense(hidden, 3, name="out"), t))


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_that_train_at_the_same_time_are_what_each_is_alone(
    start_server: Callable[..., Any], workers: int
) -> None:
    draw = np.random.default_rng(0)
    batch = {"x": draw.normal(size=(6, 4)).astype("f4"), "t": draw.integers(3, size=6)}

    def trained(session: bw.Session) -> dict[str, Any]:
        for _ in range(STEPS):
            session.train_step(batch)
        return dict(session.parameters())

    server = start_server("--executor", "jax", "--group-sessions", "--workers", str(workers))
    with bw.connect(server.wait_until_ready(), timeout=120) as client, ThreadPoolExecutor(COUNT) as pool:
        sessions = [client.create_session(network(), bw.Adam(0.01), seed=seed) for seed in range(COUNT)]
        found = list(pool.map(trained, sessions))
        others = [client.create_session(network(), bw.Adam(0.01), seed=seed, executor="numpy") for seed in range(COUNT)]
        for together, alone in zip(found, map(trained, others), strict=True):
            for name, array in alone.items():
                np.testing.assert_allclose(together[name], array, rtol=1e-4, atol=1e-5)
