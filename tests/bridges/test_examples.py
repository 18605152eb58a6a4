"""The examples of the bridges do what they say."""

import doctest
import importlib.util
import pkgutil
from collections.abc import Iterator

import numpy as np
import pytest

import backwire as bw

BRIDGES = {
    "scipy": ("scipy",),
    "sklearn": ("sklearn",),
    "torch": ("torch", "onnx"),
    "jax": ("jax",),
    "safetensors": ("safetensors",),
}
"""The bridges, and the packages that their examples need."""


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for bridge, needed in BRIDGES.items():
        if all(importlib.util.find_spec(package) for package in needed):
            package = importlib.import_module(f"backwire.{bridge}")
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                for test in finder.find(importlib.import_module(module.name), globs={"bw": bw, "np": np}):
                    if test.examples:
                        yield test


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_example(example: doctest.DocTest, client: bw.Client) -> None:
    example.globs.update(client=client)
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed == 0, "".join(report)
