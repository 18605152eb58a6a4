"""A convolutional network tells horizontal from vertical and slanted lines in noisy images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

SIZE = 12
STEPS = np.array([[0, 1], [1, 0], [1, 1], [1, -1]])  # the direction of a line, for each class


def lines(draw: np.random.Generator, count: int) -> dict[str, NDArray[Any]]:
    """Returns images [count, 1, SIZE, SIZE], each with noise and a line of 5 pixels, and the classes of the lines."""
    label = draw.integers(len(STEPS), size=count)
    images = draw.normal(scale=0.3, size=(count, 1, SIZE, SIZE))
    middle = draw.integers(2, SIZE - 2, size=(count, 2))
    for step in range(-2, 3):
        row, column = (middle + step * STEPS[label]).T
        images[np.arange(count), 0, row, column] += 1
    return {"images": images, "label": label}


def run(client: bw.Client) -> Outcome:
    """Returns the share of right answers on images that it was not trained on."""
    images = bw.input("images", ("batch", 1, SIZE, SIZE))
    label = bw.input("label", ("batch",), dtype="int64")
    h = bw.conv2d(images, 12, 3, name="conv1", padding="same", use_bias=False)
    h = bw.max_pool2d(bw.relu(bw.batch_norm(h, name="norm1")), 2)
    h = bw.conv2d(h, 24, 3, name="conv2", padding="same", use_bias=False)
    h = bw.relu(bw.batch_norm(h, name="norm2"))
    logits = bw.dense(bw.flatten(bw.global_max_pool(h)), len(STEPS), name="logits")
    loss = bw.softmax_cross_entropy(logits, label, label_smoothing=0.05)

    draw = np.random.default_rng(0)
    held_out = lines(draw, 400)
    with client.create_session(bw.graph(loss=loss, outputs={"logits": logits}), bw.AdamW(1e-2)) as session:

        def accuracy() -> float:
            answers = session.forward(held_out, mode="eval").outputs["logits"].argmax(axis=1)
            return float(np.mean(answers == held_out["label"]))

        before = accuracy()
        for _ in range(120):
            session.train_step(lines(draw, 64))
        return Outcome("accuracy", before, accuracy())


if __name__ == "__main__":
    main(run)
