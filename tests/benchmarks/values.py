"""What every implementation of a model starts from: batches, first parameters, and the settings of Adam.

Needs numpy and nothing else, so that peers run in environments that do not have Backwire.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Batch = dict[str, Array]

LEARNING_RATE = 1e-6
"""So small that thousands of steps on one batch do not train it to gradients of zero, which are other work."""

CLASSES = 10
MLPS = {
    "tiny": (4, (8, 16)),
    "S": (32, (784, 128)),
    "M": (128, (784, 512, 512)),
    "L": (256, (1024, 1024, 1024, 1024, 1024)),
}
"""The examples in a batch and the widths of the input and the hidden layers. The tiny one is for counting bytes."""

LENET_BATCH = 64
RESNET_BATCH = 32
RESNET_FILTERS = (16, 32, 64)
TRANSFORMER_BATCH, TRANSFORMER_LENGTH, TRANSFORMER_WIDTH = 16, 64, 128
TRANSFORMER_LAYERS, TRANSFORMER_HEADS, VOCABULARY = 4, 4, 256
LSTM_BATCH, LSTM_LENGTH, LSTM_WIDTH = 32, 32, 128

MODELS = ("S", "M", "L", "LeNet", "ResNet-8", "transformer", "LSTM")


def parameter(name: str, shape: tuple[int, ...]) -> Array:
    """Returns the first value of a parameter, which follows from its name, in the layout that Backwire has it in."""
    drawn: Array = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    kind = name.rpartition("/")[2]
    if kind == "scale":
        drawn = 1 + 0.1 * drawn
    elif kind in ("bias", "Wb", "Rb"):
        drawn = 0.1 * drawn
    else:
        fan = shape[0] if len(shape) == 2 else math.prod(shape[1:]) if len(shape) == 4 else shape[-1]
        drawn = drawn / fan**0.5
    return drawn.astype(np.float32)


def matrix(rows: int, columns: int) -> Array:
    """Returns a matrix to multiply."""
    drawn: Array = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    return drawn


def batch(model: str) -> Batch:
    """Returns the inputs of a model by name."""
    rng = np.random.default_rng(0)
    return _BATCHES[model](rng)


def fingerprint(gradients: dict[str, Array]) -> dict[str, list[float]]:
    """Returns two numbers for each gradient, by which those of two implementations can be compared.

    They are its norm, and its product with a random direction, which tells elements in another order apart.
    """
    found = {}
    for name, gradient in gradients.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()) + 1)
        wide = np.asarray(gradient, np.float64)
        found[name] = [float(np.linalg.norm(wide)), float(np.vdot(rng.normal(size=wide.shape), wide))]
    return found


def _images(examples: int, *shape: int) -> Callable[[np.random.Generator], Batch]:
    def draw(rng: np.random.Generator) -> Batch:
        x = rng.normal(size=(examples, *shape)).astype(np.float32)
        return {"x": x, "y": rng.integers(0, CLASSES, examples)}

    return draw


def _tokens(rng: np.random.Generator) -> Batch:
    shape = (TRANSFORMER_BATCH, TRANSFORMER_LENGTH)
    return {"x": rng.integers(0, VOCABULARY, shape), "y": rng.integers(0, VOCABULARY, shape)}


def _series(rng: np.random.Generator) -> Batch:
    x = rng.normal(size=(LSTM_LENGTH, LSTM_BATCH, LSTM_WIDTH)).astype(np.float32)
    return {"x": x, "y": rng.integers(0, CLASSES, LSTM_BATCH)}


_BATCHES: dict[str, Callable[[np.random.Generator], Batch]] = {
    **{name: _images(examples, widths[0]) for name, (examples, widths) in MLPS.items()},
    "LeNet": _images(LENET_BATCH, 1, 28, 28),
    "ResNet-8": _images(RESNET_BATCH, 3, 32, 32),
    "transformer": _tokens,
    "LSTM": _series,
}
