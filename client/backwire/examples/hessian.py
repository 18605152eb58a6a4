"""Newton's method for logistic regression: the Hessian is multiplied with vectors, never built (Pearlmutter 1994)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import backwire as bw
from backwire.examples._outcome import Outcome, main

FEATURES = 8

Array = NDArray[Any]


def regression() -> bw.Graph:
    """Returns the loss of weights w, its gradient, and the product of its Hessian with v: all of them values."""
    x = bw.input("x", ("batch", FEATURES), dtype="float64")
    y = bw.input("y", ("batch",), dtype="float64")
    w, v = bw.input("w", (FEATURES,), dtype="float64"), bw.input("v", (FEATURES,), dtype="float64")
    loss = bw.sigmoid_cross_entropy(x @ w, y) + 0.005 * bw.l2_penalty(w)
    (slope,) = bw.gradient(loss, [w])
    (product,) = bw.gradient(bw.sum(slope * v), [w])
    return bw.graph(loss=loss, outputs={"slope": slope, "product": product})


def solved(product: Callable[[Array], Array], wanted: Array) -> Array:
    """Returns x with product(x) = wanted, by conjugate gradients (Hestenes and Stiefel 1952)."""
    x, rest = np.zeros_like(wanted), wanted
    direction = rest
    for _ in range(len(wanted)):
        image = product(direction)
        step = (rest @ rest) / (direction @ image)
        x, smaller = x + step * direction, rest - step * image
        if np.linalg.norm(smaller) < 1e-12:
            break
        direction, rest = smaller + (smaller @ smaller) / (rest @ rest) * direction, smaller
    return x


def run(client: bw.Client) -> Outcome:
    """Returns the length of the gradient, which six steps take to rounding errors."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, FEATURES))
    data = {"x": x, "y": (x @ draw.normal(size=FEATURES) + draw.normal(size=200) > 0).astype(float)}
    w = np.zeros(FEATURES)
    lengths = []
    with client.create_session(regression()) as session:
        for _ in range(7):
            at = {**data, "w": w}
            slope = session.forward(at, mode="eval", outputs=["slope"]).outputs["slope"]
            lengths.append(float(np.linalg.norm(slope)))

            def product(v: Array, at: dict[str, Array] = at) -> Array:
                return session.forward({**at, "v": v}, mode="eval", outputs=["product"]).outputs["product"]

            w = w - solved(product, slope)
    return Outcome("gradient", lengths[0], lengths[-1])


if __name__ == "__main__":
    main(run)
