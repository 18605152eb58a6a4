"""Workers on the nodes of a Ray cluster behind a gateway, as `site.Site` has replicas behind a balancer."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.nodes import ENVIRONMENT, Nodes, running
from tests.cluster.site import owner_in
from tests.e2e.conftest import PACKAGES, ROOT, ServerProcess
from tests.waiting import until

import backwire as bw

WORKERS = 3
START_SECONDS = 180.0
PREFIX = "backwire-worker-"


@dataclass(frozen=True, slots=True)
class Actor:
    """A worker by its name."""

    nodes: Nodes
    name: str
    target: str

    def kill(self) -> float:
        """Kills its process; returns when, by the clock that only goes forward, which all processes share."""
        return self.nodes.kill(self.name)

    def pause(self) -> float:
        """Has its process do nothing; returns when, as `kill`."""
        return self.nodes.pause(self.name)

    def resume(self) -> None:
        """Has its process go on."""
        self.nodes.resume(self.name)

    def start(self) -> None:
        """Waits until Ray has started it again."""
        wait_for_workers(self.target)


@dataclass(frozen=True, slots=True)
class RaySite:
    """Workers by their names, the directory that they share, and the address of the gateway before them."""

    replicas: Mapping[str, Actor]
    directory: Path
    target: str

    def owner(self, session_id: str) -> str:
        """As `Site.owner`."""
        return owner_in(self.directory, session_id)


@contextmanager
def serving(directory: Path) -> Iterator[RaySite]:
    """Has workers serve on as many nodes."""
    with running(WORKERS) as nodes, gateway(nodes, directory) as (_, target):
        names = [f"{PREFIX}{number}" for number in range(WORKERS)]
        yield RaySite({name: Actor(nodes, name, target) for name in names}, directory, target)


@contextmanager
def gateway(nodes: Nodes, directory: Path) -> Iterator[tuple[ServerProcess, str]]:
    """Has a gateway serve, whose workers are all there; gives its process and its address."""
    process = start(nodes, directory)
    try:
        address = process.wait_until_ready(START_SECONDS)
        wait_for_workers(address)
        yield process, address
    finally:
        process.end()


def start(
    nodes: Nodes,
    directory: Path,
    fewest: int = WORKERS,
    most: int = WORKERS,
    module: str = "backwire_server",
    flags: Sequence[str] = (),
) -> ServerProcess:
    """Starts a gateway with so many workers."""
    common = ("--ray", nodes.address, "--data-dir", str(directory), "--allow-plaintext", "--exit-with-parent")
    count = ("--min-workers", str(fewest), "--max-workers", str(most))
    path = os.pathsep.join([str(ROOT), PACKAGES])
    environment = {**ENVIRONMENT, "BACKWIRE_WORKERS": "", "PYTHONPATH": path}
    return ServerProcess("--listen", "127.0.0.1:0", *common, *count, *flags, environment=environment, module=module)


def end(process: ServerProcess) -> None:
    """Ends a gateway in good order."""
    process.signal()
    assert process.wait(START_SECONDS) == 0, "".join(process.errors)


def wait_for_workers(target: str, count: int = WORKERS) -> None:
    """Waits until so many workers serve."""
    with bw.connect(target) as client:
        until(lambda: client.status().workers == count, START_SECONDS, 0.2)
