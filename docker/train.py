"""Recovers known weights by gradient descent through the server at the address given, or fails."""

import sys

import numpy as np

import backwire as bw

WEIGHTS, BIAS = np.array([[2.0], [-3.0], [0.5]], np.float32), 1.5


def main(address: str) -> int:
    """Trains a linear regression; returns 1 when it does not find the weights that made the data."""
    x = bw.input("x", ("batch", 3))
    y = bw.input("y", ("batch", 1))
    loss = bw.squared_error(bw.dense(x, 1, name="line"), y)
    features = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    data = {"x": features, "y": features @ WEIGHTS + np.float32(BIAS)}
    with bw.connect(address) as client, client.create_session(loss, optimizer=bw.SGD(0.1), seed=1) as session:
        losses = [session.train_step(data).loss for _ in range(200)]
        found = np.concatenate([value.ravel() for _, value in sorted(session.parameters().items())])
    wanted = np.concatenate([[BIAS], WEIGHTS.ravel()])
    sys.stdout.write(f"trained from outside: loss {losses[0]:.3f} -> {losses[-1]:.1e}, parameters {found.round(3)}\n")
    return 0 if np.allclose(found, wanted, atol=1e-3) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
