"""Two sessions play against each other: one makes numbers, and the other tells them from real ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

BATCH, NOISE = 128, 4


def real(draw: np.random.Generator, count: int) -> NDArray[Any]:
    """Returns numbers [count, 1] with mean 2 and standard deviation 1/2."""
    return draw.normal(2.0, 0.5, size=(count, 1))


def generator() -> bw.Graph:
    """Returns the graph that makes a number of noise; it has no loss of its own."""
    noise = bw.input("noise", ("batch", NOISE))
    h = bw.leaky_relu(bw.dense(noise, 32, name="first"), 0.2)
    h = bw.leaky_relu(bw.dense(h, 32, name="second"), 0.2)
    return bw.graph(outputs={"made": bw.dense(h, 1, name="made")})


def discriminator() -> bw.Graph:
    """Returns the graph that says how real a number is, and how wrong it is about that."""
    number, truth = bw.input("number", ("batch", 1)), bw.input("truth", ("batch", 1))
    h = bw.leaky_relu(bw.dense(number, 32, name="first"), 0.2)
    h = bw.leaky_relu(bw.dense(h, 32, name="second"), 0.2)
    return bw.graph(loss=bw.sigmoid_cross_entropy(bw.dense(h, 1, name="score"), truth))


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Returns the Wasserstein distance of as many numbers: how far they lie apart on average when both are sorted."""
    return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean())


def run(client: bw.Client) -> Outcome:
    """Returns how far the numbers that are made lie from real ones."""
    draw = np.random.default_rng(0)
    ones, zeros = np.ones((BATCH, 1)), np.zeros((BATCH, 1))
    with (
        client.create_session(generator(), bw.Adam(2e-3, beta1=0.5)) as maker,
        client.create_session(discriminator(), bw.Adam(4e-3, beta1=0.5)) as judge,
    ):
        sample, noise = real(draw, 1000), draw.normal(size=(1000, NOISE))

        def apart() -> float:
            return distance(maker.forward({"noise": noise}, mode="eval").outputs["made"], sample)

        before = apart()
        for _ in range(200):
            made = maker.forward({"noise": draw.normal(size=(BATCH, NOISE))})
            numbers = np.concatenate([real(draw, BATCH), made.outputs["made"]])
            judge.train_step({"number": numbers, "truth": np.concatenate([ones, zeros])})

            passed = judge.forward({"number": made.outputs["made"], "truth": ones})
            found = passed.backward(wrt=["number"])  # how to look more real
            judge.zero_gradients()  # it only advises here, and does not learn
            made.backward({"made": found["number"]})
            maker.step()
        return Outcome("distance", before, apart())


if __name__ == "__main__":
    main(run)
