"""HAProxy and Envoy in front of three replicas, as in docker/, for addresses of this machine and with faster checks."""

from collections.abc import Sequence
from pathlib import Path

from tests.deploy.files import DOCKER, adapted
from tests.deploy.proxies import PATIENT, Envoy, Haproxy, checks, tool

NAMES = ("a", "b", "c")
LISTEN = tuple(f"127.0.0.1:{port}" for port in (50051, 50052, 50053))
"""Where the configurations look for the replicas of these names."""


class HaproxyReplicas(Haproxy):
    def __init__(self, directory: Path, certificates: Path, backends: Sequence[str], port: int) -> None:
        pair = directory / "backwire.pem"
        pair.write_bytes((certificates / "tls.crt").read_bytes() + (certificates / "tls.key").read_bytes())
        self.program = tool("haproxy")
        self.path = directory / "haproxy.cfg"
        replacements = {"/etc/haproxy/backwire.pem": str(pair), "0.0.0.0:443": f"127.0.0.1:{port}", **checks(PATIENT)}
        replacements |= dict(zip(LISTEN, backends, strict=True))
        self.path.write_text(adapted(DOCKER / "haproxy-replicas.cfg", replacements))


class EnvoyReplicas(Envoy):
    def __init__(self, directory: Path, certificates: Path, backends: Sequence[str], port: int) -> None:
        self.program = tool("envoy")
        self.path = directory / "envoy.yaml"
        replacements = {
            "/etc/envoy/": f"{certificates}/",
            "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
            "port_value: 9901": "port_value: 0",
            "interval: 2s": "interval: 0.1s",
        }
        for old, new in zip(LISTEN, backends, strict=True):
            replacements[f"port_value: {_port(old)}}}"] = f"port_value: {_port(new)}}}"
        self.path.write_text(adapted(DOCKER / "envoy-replicas.yaml", replacements))


def _port(address: str) -> str:
    return address.rpartition(":")[2]
