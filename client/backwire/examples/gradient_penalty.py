"""A critic measures how far two sets of points are apart, kept honest by a penalty on its slope.

(Gulrajani et al. 2017.) A function with a slope of at most 1 that is as high as it can be on one set and as low on the
other differs between them by the Wasserstein distance. The slope is a gradient in the graph, and training
differentiates it again.
"""

import numpy as np

import backwire as bw
from backwire.examples._outcome import Outcome, main

SHIFT = np.array([1.5, 2.0])  # so that the distance is 2.5
BATCH = 128


def critic(points: bw.Value) -> bw.Value:
    """Returns a height [batch, 1] for points [batch, 2]; the parameters are shared by all that call it."""
    h = bw.softplus(points @ bw.parameter("w1", (2, 32)) + bw.parameter("b1", (32,)))
    h = bw.softplus(h @ bw.parameter("w2", (32, 32)) + bw.parameter("b2", (32,)))
    return h @ bw.parameter("w3", (32, 1))


def network() -> bw.Graph:
    """Returns the estimate of the distance, and a loss that raises it while slopes stay at 1."""
    both = bw.input("both", (2 * BATCH, 2))
    share = bw.input("share", (BATCH, 1))
    a, b = both[:BATCH], both[BATCH:]
    between = a + share * (b - a)
    heights = critic(bw.concat([a, b, between]))
    estimate = bw.mean(heights[:BATCH]) - bw.mean(heights[BATCH : 2 * BATCH])
    (slope,) = bw.gradient(heights[2 * BATCH :], [between])
    length = bw.sqrt(bw.sum(slope**2, axis=1) + 1e-12)
    return bw.graph(loss=40 * bw.mean((length - 1) ** 2) - estimate, outputs={"estimate": estimate})


def run(client: bw.Client) -> Outcome:
    """Returns the estimate of the distance, which is 2.5."""
    draw = np.random.default_rng(0)
    estimates = []
    with client.create_session(network(), bw.Adam(1e-2)) as session:
        for _ in range(200):
            points = draw.normal(size=(2 * BATCH, 2))
            points[:BATCH] += SHIFT
            share = draw.uniform(size=(BATCH, 1))
            result = session.train_step({"both": points, "share": share}, outputs=["estimate"])
            estimates.append(float(result.outputs["estimate"]))
    return Outcome("distance", estimates[0], float(np.mean(estimates[-20:])))


if __name__ == "__main__":
    main(run)
