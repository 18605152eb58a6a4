"""Tests here compile thousands of small programs that run once: with less work on each."""

from collections.abc import Iterator

import pytest

CHEAP = "jax_disable_most_optimizations"


@pytest.fixture(scope="package", autouse=True)
def _cheap_compilation() -> Iterator[None]:
    jax = pytest.importorskip("jax")
    before = jax.config.read(CHEAP)
    jax.config.update(CHEAP, True)
    yield
    jax.config.update(CHEAP, before)
