"""Federated averaging: clients train where their data are, and only parameters meet (McMahan et al. 2017).

Each client has a session of its own, which could be on a server of its own.
"""

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

CLIENTS, ROUNDS, LOCAL_STEPS = 4, 12, 5
CENTRES = np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])

Data = dict[str, NDArray[Any]]


def points(draw: np.random.Generator, labels: NDArray[Any]) -> Data:
    """Returns a point around the centre of each label."""
    return {"points": CENTRES[labels] + draw.normal(scale=0.6, size=(len(labels), 2)), "label": labels}


def network() -> bw.Graph:
    """Returns a classifier of points [batch, 2]."""
    x, label = bw.input("points", ("batch", 2)), bw.input("label", ("batch",), dtype="int64")
    logits = bw.dense(bw.tanh(bw.dense(x, 16, name="hidden")), len(CENTRES), name="logits")
    return bw.graph(loss=bw.softmax_cross_entropy(logits, label), outputs={"logits": logits})


def averaged(sessions: list[bw.Session], counts: list[int]) -> dict[str, NDArray[Any]]:
    """Returns the parameters, averaged by how many examples each session has seen."""
    found = [session.parameters() for session in sessions]
    return {name: np.average([each[name] for each in found], axis=0, weights=counts) for name in found[0]}


def run(client: bw.Client) -> Outcome:
    """Returns the share of right answers over all classes, of which each client has seen but two."""
    draw = np.random.default_rng(0)
    seen = [points(draw, draw.choice([at, (at + 1) % 4], size=50 + 20 * at)) for at in range(CLIENTS)]
    counts = [len(data["label"]) for data in seen]
    held_out = points(draw, np.arange(400) % 4)
    with ExitStack() as stack:
        shared = stack.enter_context(client.create_session(network()))
        locals_ = [stack.enter_context(client.create_session(network(), bw.SGD(0.3))) for _ in seen]

        def accuracy() -> float:
            answers = shared.forward(held_out, mode="eval").outputs["logits"].argmax(axis=1)
            return float(np.mean(answers == held_out["label"]))

        before = accuracy()
        for _ in range(ROUNDS):
            parameters = shared.parameters()
            for session, data in zip(locals_, seen, strict=True):
                session.set_parameters(parameters)
                for _ in range(LOCAL_STEPS):
                    session.train_step(data)
            shared.set_parameters(averaged(locals_, counts))
        return Outcome("accuracy", before, accuracy())


if __name__ == "__main__":
    main(run)
