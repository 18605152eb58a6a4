"""Three replicas over one directory, and a server that nothing disturbs."""

from collections.abc import Iterator

import pytest
from tests.cluster.site import Site, serving

import backwire as bw


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Of the replicas only `a` loses sessions when it stalls."""
    with serving(tmp_path_factory.mktemp("site"), stalling=("a",)) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[bw.Client]:
    with bw.connect("embedded") as client:
        yield client
