"""Failpoints that a test arms do not outlive it."""

from collections.abc import Callable, Iterator

import pytest

from backwire_server.storage import failpoints


@pytest.fixture
def arm() -> Iterator[Callable[[str], object]]:
    """Arms failpoints until the end of the test."""
    yield failpoints.arm
    failpoints.disarm()
