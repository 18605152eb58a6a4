"""A multilayer perceptron tells apart the points of two spirals that wind around each other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main


def spirals(draw: np.random.Generator, count: int) -> dict[str, NDArray[Any]]:
    """Returns points [count, 2] and the numbers of their spirals [count]."""
    label = draw.integers(2, size=count)
    radius = np.sqrt(draw.uniform(0.05, 1, count))
    angle = 2 * np.pi * radius + np.pi * label
    points = radius * np.stack([np.cos(angle), np.sin(angle)]) + draw.normal(scale=0.02, size=(2, count))
    return {"points": points.T, "label": label}


def run(client: bw.Client) -> Outcome:
    """Returns the share of right answers on points that it was not trained on."""
    points = bw.input("points", ("batch", 2))
    label = bw.input("label", ("batch",), dtype="int64")
    h = bw.relu(bw.dense(points, 64, name="first", initializer=bw.HeNormal()))
    h = bw.relu(bw.dense(h, 64, name="second", initializer=bw.HeNormal()))
    logits = bw.dense(h, 2, name="logits")
    graph = bw.graph(loss=bw.softmax_cross_entropy(logits, label), outputs={"logits": logits})

    draw = np.random.default_rng(0)
    held_out = spirals(draw, 500)
    with client.create_session(graph, bw.Adam(1e-2)) as session:

        def accuracy() -> float:
            answers = session.forward(held_out, mode="eval").outputs["logits"].argmax(axis=1)
            return float(np.mean(answers == held_out["label"]))

        before = accuracy()
        for _ in range(250):
            session.train_step(spirals(draw, 64))
        return Outcome("accuracy", before, accuracy())


if __name__ == "__main__":
    main(run)
