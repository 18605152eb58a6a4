"""A service learns from a stream: it predicts each event, then learns from it, and follows when the world changes."""

from collections.abc import Iterator

import numpy as np

import backwire as bw
from backwire.examples._outcome import Outcome, main

Event = dict[str, list[list[float]]]


def events(draw: np.random.Generator, count: int) -> Iterator[Event]:
    """Yields events with three features and a price, which follows another law after half of them."""
    for index in range(count):
        law = np.array([1.0, -2.0, 0.5]) if index < count // 2 else np.array([-1.0, 1.0, 2.0])
        features = draw.normal(size=3)
        price = float(features @ law + draw.normal(scale=0.05))
        yield {"features": [features.tolist()], "price": [[price]]}


def run(client: bw.Client) -> Outcome:
    """Returns the mean error of the first 20 predictions, and of the last 20, long after the change."""
    features, price = bw.input("features", ("batch", 3)), bw.input("price", ("batch", 1))
    guess = bw.dense(features, 1, name="law", initializer=bw.Zeros())
    graph = bw.graph(loss=bw.huber_loss(guess, price), outputs={"guess": guess})
    errors = []
    with client.create_session(graph, bw.SGD(0.1)) as session:
        for event in events(np.random.default_rng(0), 400):
            guessed = session.train_step(event, outputs=["guess"]).outputs["guess"]  # made before the step
            errors.append(abs(float(guessed[0, 0]) - event["price"][0][0]))
    change = f"after the change {np.mean(errors[200:220]):.4g}"
    return Outcome("error", float(np.mean(errors[:20])), float(np.mean(errors[-20:])), change)


if __name__ == "__main__":
    main(run)
