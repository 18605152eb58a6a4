"""A server in plain text on the loopback, certificates for it, what it tells Prometheus, and ports that are free."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.deploy.files import CERTIFICATES, DOCKER, PACKAGES, PREFIX
from tests.deploy.metered import exposed, metered
from tests.ports import unused_port


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a directory with what docker/certificates makes."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("certificates")
    subprocess.run([DOCKER / "certificates", directory, "other.example"], check=True, capture_output=True)
    assert {path.name for path in directory.iterdir()} == CERTIFICATES
    return directory


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    """Returns the address of a server, which ends with the fixture."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
    with subprocess.Popen(
        [sys.executable, "-m", "backwire_server", "--listen", "127.0.0.1:0", "--workers", "1", "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": PACKAGES},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(PREFIX), line
        yield line.removeprefix(PREFIX).strip()
        process.terminate()


@pytest.fixture(scope="session")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, frozenset[str]]:
    """Returns the labels of each series that a server tells Prometheus of, by the name of the series."""
    with metered(tmp_path_factory.mktemp("metered")) as address:
        return exposed(address)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Returns a function that finds a port of the loopback where nothing listens."""
    return unused_port
