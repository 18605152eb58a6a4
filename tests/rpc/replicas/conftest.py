"""A replica that others open lanes to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rpc.conftest import Api
from tests.rpc.replicas.serving import started


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Api]:
    made = Api(started(tmp_path, "a"))
    yield made
    made.channel.close()
    made.server.stop(5.0)
