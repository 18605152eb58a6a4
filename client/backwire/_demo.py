"""Trains a small convolutional network on scikit-learn's handwritten digits, all through the SDK."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import backwire as bw

GOAL = 0.97
BATCH = 64
LEARNING_RATE = 2e-3

Array = NDArray[Any]


@dataclass(slots=True)
class Outcome:
    """How the training went.

    Attributes:
        losses: The loss of every step.
        train_accuracies: The share of right answers among the training digits, for every epoch.
        test_accuracies: The share of right answers among the digits held out, after every epoch.
        images: The digits held out, [digits, 8, 8].
        labels: What they are.
        predictions: What the network takes them for.
    """

    losses: list[float] = field(default_factory=list)
    train_accuracies: list[float] = field(default_factory=list)
    test_accuracies: list[float] = field(default_factory=list)
    images: Array = field(default_factory=lambda: np.empty(0))
    labels: Array = field(default_factory=lambda: np.empty(0))
    predictions: Array = field(default_factory=lambda: np.empty(0))

    @property
    def accuracy(self) -> float:
        """The share of right answers among the digits held out, at the end."""
        return self.test_accuracies[-1]


def network() -> bw.Graph:
    """Returns the graph: two convolutions, pooling and two dense layers, for images [batch, 1, 8, 8] of 0 to 1."""
    images = bw.input("images", ("batch", 1, 8, 8))
    labels = bw.input("labels", ("batch",), dtype="int64")
    x = bw.relu(bw.conv2d(images, 16, 3, name="conv1", padding="same"))
    x = bw.relu(bw.conv2d(x, 32, 3, name="conv2", padding="same"))
    x = bw.flatten(bw.max_pool2d(x, 2))
    x = bw.dropout(bw.relu(bw.dense(x, 64, name="hidden")), 0.25)
    logits = bw.dense(x, 10, name="logits")
    return bw.graph(loss=bw.softmax_cross_entropy(logits, labels), outputs={"logits": logits})


def run(target: str, *, epochs: int, seed: int) -> Outcome:
    """Trains on four fifths of the 1,797 digits and returns how it went; the rest is never trained on."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, np.newaxis]
    x, x_test, y, y_test = train_test_split(
        images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    outcome = Outcome(images=x_test[:, 0], labels=y_test)
    rng = np.random.default_rng(seed)
    with (
        bw.connect(target) as client,
        client.create_session(network(), bw.Adam(LEARNING_RATE), seed=seed) as session,
        tqdm(total=epochs * -(-len(x) // BATCH), unit="step", desc="training") as bar,
    ):
        for _ in range(epochs):
            right = 0
            for batch in _batches(rng, len(x)):
                step = session.train_step({"images": x[batch], "labels": y[batch]}, outputs=["logits"])
                right += int(np.sum(step.outputs["logits"].argmax(axis=1) == y[batch]))
                outcome.losses.append(step.loss)
                bar.set_postfix(_figures(outcome), refresh=False)
                bar.update()
            outcome.train_accuracies.append(right / len(x))
            outcome.predictions = _classify(session, x_test)
            outcome.test_accuracies.append(float(np.mean(outcome.predictions == y_test)))
            bar.set_postfix(_figures(outcome))
    return outcome


def draw(outcome: Outcome, output: str) -> Path:
    """Writes the picture, making the folder where needed, and returns where it is."""
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    curves, gallery = parts
    curves.suptitle("Backwire learns handwritten digits over gRPC", fontsize=14)
    _draw_curves(curves, outcome)
    _draw_digits(gallery, outcome)
    figure.savefig(path, dpi=120)
    return path


def _batches(rng: np.random.Generator, count: int) -> Iterator[Array]:
    order = rng.permutation(count)
    for start in range(0, count, BATCH):
        yield order[start : start + BATCH]


def _classify(session: bw.Session, images: Array) -> Array:
    logits = session.forward({"images": images}, mode="eval", outputs=["logits"]).outputs["logits"]
    return np.asarray(logits.argmax(axis=1))


def _figures(outcome: Outcome) -> dict[str, str]:
    accuracy = f"{outcome.accuracy:.1%}" if outcome.test_accuracies else "-"
    return {"loss": f"{np.mean(outcome.losses[-20:]):.4f}", "test accuracy": accuracy}


def _draw_curves(figure: Any, outcome: Outcome) -> None:
    left, right = figure.subplots(1, 2)
    steps = np.arange(1, len(outcome.losses) + 1)
    window = min(20, len(steps))
    smooth = np.convolve(outcome.losses, np.ones(window) / window, mode="valid")
    left.plot(steps, outcome.losses, color="#9db7d5", linewidth=0.8, label="each batch")
    left.plot(steps[window - 1 :], smooth, color="#1f4e8c", linewidth=1.8, label=f"mean of {window}")
    left.set(yscale="log", xlabel="step", ylabel="cross-entropy loss", title="loss")
    epochs = np.arange(1, len(outcome.test_accuracies) + 1)
    right.plot(epochs, outcome.train_accuracies, color="#9db7d5", marker=".", label="training, with dropout")
    right.plot(epochs, outcome.test_accuracies, color="#1f4e8c", marker=".", label="held out")
    right.axhline(GOAL, color="#b5482f", linewidth=1, linestyle="--", label=f"goal {GOAL:.0%}")
    right.set(xlabel="epoch", ylabel="share of right answers", title=f"accuracy: {outcome.accuracy:.1%} held out")
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)


def _draw_digits(figure: Any, outcome: Outcome, columns: int = 12, rows: int = 2) -> None:
    """Draws the mistakes first, in red, and then other digits."""
    wrong = outcome.predictions != outcome.labels
    order = np.argsort(~wrong, kind="stable")[: columns * rows]
    figure.suptitle(f"held-out digits: {int(wrong.sum())} of {len(wrong)} taken for another", fontsize=11)
    for axes, index in zip(figure.subplots(rows, columns).flat, order, strict=True):
        axes.imshow(outcome.images[index], cmap="gray_r")
        axes.axis("off")
        text = f"{outcome.predictions[index]}"
        if wrong[index]:
            text += f" (is {outcome.labels[index]})"
        axes.set_title(text, fontsize=10, color="#b5482f" if wrong[index] else "#333333")
