"""Where rounds are played: servers that start in milliseconds, and one that nothing befalls."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.launchers import Launcher, WarmLauncher
from tests.faults.rounds import Arena, connected
from tests.faults.server import Server

import backwire as bw


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    starting = WarmLauncher()
    yield starting
    starting.close()


@pytest.fixture(scope="session")
def undisturbed(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[bw.Client]:
    with Server(launcher, tmp_path_factory.mktemp("undisturbed"), kept=False) as server:
        server.start()
        with connected(server.address) as client:
            yield client


@pytest.fixture
def arena(launcher: Launcher, undisturbed: bw.Client, tmp_path: Path) -> Arena:
    return Arena(launcher, undisturbed, tmp_path)
