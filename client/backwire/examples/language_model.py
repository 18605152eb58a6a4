"""A transformer learns the Zen of Python letter by letter, and goes on from its beginning."""

import codecs
import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

CONTEXT = 32
FEATURES = 48


def zen() -> str:
    """Returns the text that `import this` prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    return codecs.decode(this.s, "rot13")


def network(letters: int) -> bw.Graph:
    """Returns a decoder of two blocks whose logits at a place are about the letter that follows."""
    text = bw.input("text", ("batch", "time"), dtype="int64")
    following = bw.input("following", ("batch", "time"), dtype="int64")
    h = bw.embedding(text, letters, FEATURES, name="letters")
    h = bw.learned_positions(h, name="places", steps=CONTEXT)
    for index in range(2):
        h = bw.transformer_encoder_block(h, heads=4, hidden=2 * FEATURES, name=f"block{index}", causal=True)
    logits = bw.dense(bw.layer_norm(h, name="norm"), letters, name="logits")
    loss = bw.softmax_cross_entropy(bw.transpose(logits, (0, 2, 1)), following)  # the classes along axis 1
    return bw.graph(loss=loss, outputs={"logits": logits})


def continued(session: bw.Session, text: NDArray[Any], count: int) -> NDArray[Any]:
    """Returns the text with `count` more letters, each the likeliest after those before."""
    for _ in range(count):
        seen = text[-CONTEXT:]
        padded = np.pad(seen, (0, CONTEXT - len(seen)))  # no letter sees those after it
        logits = session.forward({"text": [padded]}, mode="eval", outputs=["logits"]).outputs["logits"]
        text = np.append(text, logits[0, len(seen) - 1].argmax())
    return text


def run(client: bw.Client) -> Outcome:
    """Returns the loss for each letter in nats, and what it makes of the first words."""
    letters, text = np.unique(list(zen()), return_inverse=True)
    windows = np.lib.stride_tricks.sliding_window_view(text, CONTEXT + 1)
    draw = np.random.default_rng(0)
    with client.create_session(network(len(letters)), bw.Adam(4e-3)) as session:
        losses = []
        for _ in range(200):
            batch = windows[draw.integers(len(windows), size=16)]
            losses.append(session.train_step({"text": batch[:, :-1], "following": batch[:, 1:]}).loss)
        told = "".join(letters[continued(session, text[:17], 60)])
    return Outcome("loss", losses[0], float(np.mean(losses[-10:])), told)


if __name__ == "__main__":
    main(run)
