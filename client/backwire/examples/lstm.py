"""A recurrent network remembers the first letter of a sequence until its end."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

LETTERS, STEPS = 6, 15


def sequences(draw: np.random.Generator, count: int) -> dict[str, NDArray[Any]]:
    """Returns sequences [count, STEPS] of which the first letter matters, and the rest is to be forgotten."""
    letters = draw.integers(LETTERS, size=(count, STEPS))
    return {"letters": letters, "first": letters[:, 0]}


def run(client: bw.Client) -> Outcome:
    """Returns the share of sequences whose first letter it knows at the end."""
    letters = bw.input("letters", ("batch", STEPS), dtype="int64")
    first = bw.input("first", ("batch",), dtype="int64")
    h = bw.embedding(letters, LETTERS, 8, name="letters_seen")
    _, state, _ = bw.lstm(h, 24, name="memory", forget_bias=3.0)
    logits = bw.dense(state[-1], LETTERS, name="logits")
    graph = bw.graph(loss=bw.softmax_cross_entropy(logits, first), outputs={"logits": logits})

    draw = np.random.default_rng(0)
    held_out = sequences(draw, 300)
    with client.create_session(graph, bw.Adam(2e-2)) as session:

        def accuracy() -> float:
            answers = session.forward(held_out, mode="eval").outputs["logits"].argmax(axis=1)
            return float(np.mean(answers == held_out["first"]))

        before = accuracy()
        for _ in range(150):
            session.train_step(sequences(draw, 64))
        return Outcome("accuracy", before, accuracy())


if __name__ == "__main__":
    main(run)
