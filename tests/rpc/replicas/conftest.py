"""Replicas over a directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import Until, open_lane, started

from backwire_server.rpc.replicas import lane_server, lanes, peer_proof


@pytest.fixture(autouse=True)
def _in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has nobody come too late to open a lane, or to prove who it is, because the machine is busy."""
    monkeypatch.setattr(lanes, "CONNECT_SECONDS", TIMEOUT)
    for module in (lane_server, peer_proof):
        monkeypatch.setattr(module, "PROOF_SECONDS", TIMEOUT)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Api]:
    """A client of one that others open lanes to."""
    made = Api(started(tmp_path, "a"))
    yield made
    made.channel.close()
    made.server.stop(5.0)


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[tuple[Api, Api]]:
    """Clients, which follow nobody, of two, with no lanes between them."""
    found = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    yield found
    for api in found:
        api.channel.close()
        api.server.stop(5.0)


@pytest.fixture(params=["by gRPC", "on lanes"])
def joined(request: pytest.FixtureRequest, tmp_path: Path, until: Until) -> Iterator[tuple[Api, Api]]:
    """Clients, which follow nobody, of two servers over a directory: the second has a lane to the first, or none."""
    found = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    if request.param == "on lanes":
        open_lane(found[1], found[0], until)
    yield found
    for api in found:
        api.channel.close()
        api.server.stop(5.0)
