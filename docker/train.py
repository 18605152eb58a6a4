"""Recovers known weights by gradient descent, in as many sessions at once as given, each in a process of its own.

Arguments: the server's address, and how many processes it must have spread the sessions over. Fails otherwise.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import backwire as bw

WEIGHTS, BIAS = np.array([[2.0], [-3.0], [0.5]], np.float32), 1.5


def main(address: str, workers: int) -> int:
    """Trains a linear regression in every session; returns 1 unless all find the weights that made the data."""
    with bw.connect(address) as client, ThreadPoolExecutor(workers) as threads:
        sessions = [client.create_session(_graph(), optimizer=bw.SGD(0.1), seed=1) for _ in range(workers)]
        processes = {session.info().address for session in sessions}
        listed = {session.id for session in client.sessions()}
        well = all(list(threads.map(_trains, sessions)))
        for session in sessions:
            session.close()
    spread = len(processes) == workers and listed >= {session.id for session in sessions}
    sys.stdout.write(f"{len(sessions)} sessions, kept by {len(processes)} processes\n")
    return 0 if well and spread else 1


def _graph() -> bw.Graph:
    loss = bw.squared_error(bw.dense(bw.input("x", ("batch", 3)), 1, name="line"), bw.input("y", ("batch", 1)))
    return bw.graph(loss=loss)


def _trains(session: bw.Session) -> bool:
    features = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    data = {"x": features, "y": features @ WEIGHTS + np.float32(BIAS)}
    losses = [session.train_step(data).loss for _ in range(200)]
    found = np.concatenate([value.ravel() for _, value in sorted(session.parameters().items())])
    wanted = np.concatenate([[BIAS], WEIGHTS.ravel()])
    sys.stdout.write(f"trained from outside: loss {losses[0]:.3f} -> {losses[-1]:.1e}, parameters {found.round(3)}\n")
    return np.allclose(found, wanted, atol=1e-3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
