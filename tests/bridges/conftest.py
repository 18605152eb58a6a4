"""A server that all tests of a process share."""

from collections.abc import Iterator

import pytest

import backwire as bw


@pytest.fixture(scope="session")
def client() -> Iterator[bw.Client]:
    with bw.connect("embedded") as connected:
        yield connected
