"""Workers train one session together: each computes the gradient of its part of the batch, and one of them steps.

The server adds up what they send, each contribution once, so that the step is that of the whole batch.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

WORKERS = 4

Batch = dict[str, NDArray[Any]]


def work(client: bw.Client, session_id: str, shards: list[Batch], number: int, stepped: Barrier) -> list[float]:
    """Does one worker's part of every batch and returns its losses; the first worker steps, the others wait for it."""
    session = client.session(session_id)
    losses = []
    for step, shard in enumerate(shards):
        forward = session.forward(shard)
        losses.append(float(forward.loss or 0.0))
        forward.backward(weight=len(shard["y"]))
        if number == 0:
            session.step(expected_step=step, after_contributions=WORKERS, normalize="mean")
        stepped.wait()
    return losses


def run(client: bw.Client) -> Outcome:
    """Returns the loss of the first and of the last batch, and how far the result is from one worker's."""
    x, y = bw.input("x", ("batch", 5)), bw.input("y", ("batch", 1))
    loss = bw.squared_error(bw.dense(bw.tanh(bw.dense(x, 16, name="hidden")), 1, name="out"), y)
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(40, 64, 5))
    batches = [{"x": each, "y": np.sin(each.sum(axis=1, keepdims=True))} for each in inputs]
    with client.create_session(loss, bw.Adam(2e-2)) as together, client.create_session(loss, bw.Adam(2e-2)) as alone:
        with ThreadPoolExecutor(WORKERS) as pool:
            parts = [
                [{name: np.array_split(each, WORKERS)[number] for name, each in batch.items()} for batch in batches]
                for number in range(WORKERS)
            ]
            stepped = Barrier(WORKERS)
            jobs = [
                pool.submit(work, client, together.id, shards, number, stepped) for number, shards in enumerate(parts)
            ]
            losses = np.mean([job.result() for job in jobs], axis=0)
        for batch in batches:
            alone.train_step(batch)
        apart = max(
            float(np.abs(a - b).max())
            for a, b in zip(together.parameters().values(), alone.parameters().values(), strict=True)
        )
    return Outcome("loss", float(losses[0]), float(losses[-1]), f"apart from one worker's parameters: {apart:.1e}")


if __name__ == "__main__":
    main(run)
