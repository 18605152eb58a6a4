"""Split learning: one party has the data and half of the model, another the labels and the other half.

Only activations and their gradients pass between the two (Gupta and Raskar 2018); each half is a session, which could
be on a server of its own.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main


def lower() -> bw.Graph:
    """Returns the half that sees the data: points [batch, 2] become activations [batch, 16]."""
    points = bw.input("points", ("batch", 2))
    return bw.graph(outputs={"activations": bw.relu(bw.dense(points, 16, name="lower"))})


def upper() -> bw.Graph:
    """Returns the half that sees the labels."""
    activations = bw.input("activations", ("batch", 16))
    label = bw.input("label", ("batch",), dtype="int64")
    h = bw.relu(bw.dense(activations, 16, name="middle"))
    logits = bw.dense(h, 2, name="logits")
    return bw.graph(loss=bw.softmax_cross_entropy(logits, label), outputs={"logits": logits})


def rings(draw: np.random.Generator, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns points [count, 2] on two rings, and the numbers of the rings."""
    label = draw.integers(2, size=count)
    angle, radius = draw.uniform(0, 2 * np.pi, count), 1 + label + draw.normal(scale=0.1, size=count)
    return (radius * np.stack([np.cos(angle), np.sin(angle)])).T, label


def run(client: bw.Client) -> Outcome:
    """Returns the share of right answers on points that it was not trained on."""
    draw = np.random.default_rng(0)
    points, label = rings(draw, 400)
    with client.create_session(lower(), bw.Adam(1e-2)) as data, client.create_session(upper(), bw.Adam(1e-2)) as labels:

        def accuracy() -> float:
            seen = data.forward({"points": points}, mode="eval").outputs
            answers = labels.forward(seen, mode="eval", outputs=["logits"]).outputs["logits"].argmax(axis=1)
            return float(np.mean(answers == label))

        before = accuracy()
        for _ in range(150):
            batch, truth = rings(draw, 64)
            sent = data.forward({"points": batch})
            received = labels.forward({**sent.outputs, "label": truth})
            returned = received.backward(wrt=["activations"])
            labels.step()
            sent.backward(returned)
            data.step()
        return Outcome("accuracy", before, accuracy())


if __name__ == "__main__":
    main(run)
