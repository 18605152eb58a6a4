"""An autoencoder squeezes images of a blob through three numbers, and draws the images from these again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

SIZE = 12


def blobs(draw: np.random.Generator, count: int) -> dict[str, NDArray[Any]]:
    """Returns images [count, 1, SIZE, SIZE] of round blobs, each at some place and of some width."""
    row, column = draw.uniform(2, SIZE - 3, (2, count, 1, 1, 1))
    width = draw.uniform(1, 2.5, (count, 1, 1, 1))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return {"images": np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))}


def network() -> bw.Graph:
    """Returns an encoder to `code` [batch, 3] and a decoder back to `drawn`, the shape of the images."""
    images = bw.input("images", ("batch", 1, SIZE, SIZE))
    h = bw.gelu(bw.conv2d(images, 8, 3, name="down1", stride=2, padding=1))
    h = bw.gelu(bw.conv2d(h, 16, 3, name="down2", stride=2, padding=1))
    code = bw.dense(bw.flatten(h), 3, name="code")
    h = bw.gelu(bw.dense(bw.gelu(bw.dense(code, 64, name="up1")), 16 * 9, name="up2"))
    h = bw.reshape(h, (h.shape[0] if h.shape else None, 16, 3, 3))
    h = bw.gelu(bw.conv_transpose2d(h, 8, 4, name="up3", stride=2, padding=1))
    drawn = bw.sigmoid(bw.conv_transpose2d(h, 1, 4, name="up4", stride=2, padding=1))
    return bw.graph(loss=bw.squared_error(drawn, images), outputs={"code": code, "drawn": drawn})


def run(client: bw.Client) -> Outcome:
    """Returns the mean squared error of images that it was not trained on."""
    draw = np.random.default_rng(0)
    held_out = blobs(draw, 200)
    with client.create_session(network(), bw.Adam(5e-3)) as session:
        before = session.forward(held_out, mode="eval").loss
        for _ in range(300):
            session.train_step(blobs(draw, 32))
        after = session.forward(held_out, mode="eval").loss
    assert before is not None
    assert after is not None
    return Outcome("squared error", before, after)


if __name__ == "__main__":
    main(run)
