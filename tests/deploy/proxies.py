"""HAProxy and Envoy with the configurations of docker/, as the tests run them."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.deploy.files import DOCKER, adapted

import backwire as bw

LISTEN = "127.0.0.1:50051"
"""Where the configurations look for the server."""


def tool(name: str) -> str:
    """Returns the path of a program beside the interpreter or on the path; skips the test without it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


PATIENT, IMPATIENT = "10s", "500ms"
"""How long HAProxy waits for answers to checks: a server that gets no processor is not taken for dead, or soon is."""


BEGINNING = bw.Retry(first_contact=45.0)
"""Has clients wait for a proxy that begins, and for its first checks, also on a busy machine."""


def checks(patience: str) -> dict[str, str]:
    """Returns what is replaced in a configuration of HAProxy so that its checks come often and wait for so long."""
    return {"check inter 1s fastinter 500ms": "check inter 100ms", "timeout check 1s": f"timeout check {patience}"}


class Haproxy:
    """The configuration of HAProxy, for a server and a port of this machine and with less time between checks."""

    def __init__(self, directory: Path, certificates: Path, backend: str, port: int, patience: str = PATIENT) -> None:
        pair = directory / "backwire.pem"
        pair.write_bytes((certificates / "tls.crt").read_bytes() + (certificates / "tls.key").read_bytes())
        self.program = tool("haproxy")
        self.path = directory / "haproxy.cfg"
        self.path.write_text(
            adapted(
                DOCKER / "haproxy.cfg",
                {
                    "/etc/haproxy/backwire.pem": str(pair),
                    "0.0.0.0:443": f"127.0.0.1:{port}",
                    LISTEN: backend,
                    **checks(patience),
                },
            )
        )

    @property
    def check(self) -> list[str]:
        return [self.program, "-c", "-f", str(self.path)]

    @property
    def run(self) -> list[str]:
        return [self.program, "-db", "-f", str(self.path)]


class Envoy:
    """The same of Envoy."""

    def __init__(self, directory: Path, certificates: Path, backend: str, port: int) -> None:
        host, _, backend_port = backend.rpartition(":")
        self.program = tool("envoy")
        self.path = directory / "envoy.yaml"
        self.path.write_text(
            adapted(
                DOCKER / "envoy.yaml",
                {
                    "/etc/envoy/": f"{certificates}/",
                    "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
                    "address: 127.0.0.1, port_value: 50051": f"address: {host}, port_value: {backend_port}",
                    "port_value: 9901": "port_value: 0",
                    "interval: 2s": "interval: 0.1s",
                },
            )
        )

    @property
    def check(self) -> list[str]:
        return [self.program, "--mode", "validate", "--config-path", str(self.path)]

    @property
    def run(self) -> list[str]:
        return [
            *[self.program, "--config-path", str(self.path), "--use-dynamic-base-id"],
            *["--concurrency", "1", "--log-level", "warning"],
        ]


@contextmanager
def running(proxy: Haproxy | Envoy) -> Iterator[None]:
    with subprocess.Popen(proxy.run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()
