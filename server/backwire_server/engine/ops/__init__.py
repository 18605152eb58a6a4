"""The operators, by family. Importing this package fills the table in `registry`."""

from backwire_server.engine.ops import (
    activation,
    arithmetic,
    convolution,
    indexing,
    linear,
    logic,
    loss,
    padding,
    pooling,
    random,
    reduction,
    shaping,
    softmax,
)

__all__ = [
    "activation",
    "arithmetic",
    "convolution",
    "indexing",
    "linear",
    "logic",
    "loss",
    "padding",
    "pooling",
    "random",
    "reduction",
    "shaping",
    "softmax",
]
