"""The settings of a server, and which of them do not go together.

Importing this module imports no numpy, so that the process can still be prepared for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

from backwire_server.config_parts import Access, Capacity, Cluster, Keeping
from backwire_server.config_values import ConfigError
from backwire_server.machine import Tuning, usable_cores
from backwire_server.sessions.limits import UNLIMITED, Limits, TenantLimits

_EXTRAS = {"tracing": "opentelemetry.sdk", "reflection": "grpc_reflection", "channelz": "grpc_channelz"}
"""Settings that need an extra of the distribution of the same name, each with a module that comes with it."""

EVERYWHERE = ("0.0.0.0", "::")
"""Hosts to listen on which are none to connect to."""

LEAST_LEASE = 0.1
"""In seconds, of which a sign of life is given in each fifth."""

LEAST_MESSAGE_BYTES = 4 << 20  # a chunk may have 2 MiB, and has a name and a shape besides


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a server. Raises ConfigError for those that do not go together.

    Attributes:
        listen: `HOST:PORT` or `unix:PATH`.
        allow_plaintext: Whether an address that other machines can reach may be served without encryption.
        grace: How long calls in progress may go on after a signal to end, in seconds.
        exit_with_parent: Whether to end when standard input does.
        log_level: From which level on to log.
        access_log: Whether to log every call.
        metrics_listen: `HOST:PORT` to serve metrics on; None for nowhere.
        tracing: Whether to export traces.
        reflection: Whether clients may read the contract from the server.
        channelz: Whether admins may see its connections.
        replica: The name of this server among several behind one address; None for one that is alone.
        workers: How many processes share the sessions; None for one per core.
        worker_port: The first of the ports on which workers are reached directly from other machines; None for none.
        tuning: How each process uses the machine.
        access: Who may come in.
        keeping: How sessions are kept on disk.
        limits: What sessions are held to.
        tenants: What each tenant is held to unless the tokens file says otherwise.
        capacity: What is taken on at a time.
        cluster: The workers that Ray runs.
    """

    listen: str = "127.0.0.1:50051"
    allow_plaintext: bool = False
    grace: float = 20.0
    exit_with_parent: bool = False
    log_level: str = "info"
    access_log: bool = False
    metrics_listen: str | None = None
    tracing: bool = False
    reflection: bool = False
    channelz: bool = False
    replica: str | None = None
    workers: int | None = None
    worker_port: int | None = None
    tuning: Tuning = field(default_factory=Tuning)
    access: Access = field(default_factory=Access)
    keeping: Keeping = field(default_factory=Keeping)
    limits: Limits = field(default_factory=Limits)
    tenants: TenantLimits = UNLIMITED
    capacity: Capacity = field(default_factory=Capacity)
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        encrypted = self.access.tls_certificate is not None
        if encrypted != (self.access.tls_key is not None):
            raise ConfigError("--tls-certificate and --tls-key go together; give both, or neither")
        if self.access.client_ca is not None and not encrypted:
            raise ConfigError("--client-ca takes --tls-certificate and --tls-key; give them, too")
        if not (encrypted or _is_private(self.listen) or self.allow_plaintext):
            raise ConfigError(
                f"--listen {self.listen} can be reached from other machines, and the traffic is not encrypted; give "
                "--tls-certificate and --tls-key, listen on 127.0.0.1 or a unix socket, or say --allow-plaintext"
            )
        if self.metrics_listen is not None and not (
            encrypted or _is_private(self.metrics_listen) or self.allow_plaintext
        ):
            raise ConfigError(
                f"--metrics-listen {self.metrics_listen} can be reached from other machines, and is not encrypted; "
                "give --tls-certificate and --tls-key, listen on 127.0.0.1, or say --allow-plaintext"
            )
        self._check_extras()
        self._check_shared()
        self._check_cluster()
        if self.limits.max_message_bytes < LEAST_MESSAGE_BYTES:
            raise ConfigError(
                f"--max-message-bytes {self.limits.max_message_bytes} is less than {LEAST_MESSAGE_BYTES}; chunks of "
                "tensors would not fit"
            )
        if self.capacity.max_request_bytes < self.limits.max_message_bytes:
            raise ConfigError(
                f"--max-request-bytes {self.capacity.max_request_bytes} is less than --max-message-bytes "
                f"{self.limits.max_message_bytes}; a single message must fit"
            )
        if self.worker_port is not None and self.listen.startswith("unix:"):
            raise ConfigError("--worker-port goes with --listen HOST:PORT; workers of a unix socket have unix sockets")

    def _check_shared(self) -> None:
        keeping = self.keeping
        if self.access.peer_ca is not None and (
            self.access.tls_certificate is None or not (keeping.shared or self.cluster.ray)
        ):
            raise ConfigError(
                "--peer-ca goes with --shared and --tls-certificate (--ray shares, too); give them, or leave it out"
            )
        if self.capacity.peer_helpers and not (keeping.shared or self.cluster.ray):
            raise ConfigError(
                "--peer-helpers goes with --shared (--ray shares, too); have servers share a directory, or leave it out"
            )
        if keeping.lane_port and (not keeping.shared or not keeping.lanes or self.listen.startswith("unix:")):
            raise ConfigError(
                "--lane-port goes with --shared and --listen HOST:PORT (workers of --ray find their own), and not with "
                "--no-lanes; leave it out"
            )
        if not keeping.shared:
            return
        if self.replica is None or keeping.data_dir is None:
            raise ConfigError("--shared takes --replica and --data-dir; give each server a name, and all one directory")
        if keeping.lease < LEAST_LEASE:
            raise ConfigError(f"--lease {keeping.lease:g} is too short for signs of life; give {LEAST_LEASE:g} or more")
        if self.workers not in (None, 1):
            raise ConfigError("--shared goes with one worker; start more servers on the directory instead of --workers")
        if keeping.max_disk_bytes is not None:
            raise ConfigError("--max-disk-bytes does not go with --shared; limit the file system of the directory")
        if keeping.advertise is None and _host(self.listen) in EVERYWHERE:
            raise ConfigError(
                f"--listen {self.listen} is no address at which clients reach this server; say which is by --advertise"
            )

    def _check_cluster(self) -> None:
        cluster, keeping = self.cluster, self.keeping
        if cluster.ray is None:
            return
        if not _installed("ray"):
            raise ConfigError(
                "--ray needs packages that are not installed: run `pip install 'backwire[ray]'`, or leave --ray out"
            )
        if keeping.data_dir is None or keeping.max_disk_bytes is not None or self.worker_port is not None:
            raise ConfigError(
                "--ray takes a --data-dir that all nodes have mounted, and neither --max-disk-bytes nor --worker-port"
            )
        if self.workers is not None or self.replica is not None or keeping.shared or keeping.advertise is not None:
            raise ConfigError(
                "--ray starts workers that share the directory, and names them; leave out --workers, --replica, "
                "--shared and --advertise, and say how many there may be by --min-workers and --max-workers"
            )
        if cluster.max_workers is not None and cluster.max_workers < cluster.min_workers:
            raise ConfigError(
                f"--max-workers {cluster.max_workers} is less than --min-workers {cluster.min_workers}; raise it"
            )

    def _check_extras(self) -> None:
        if self.tuning.executor != "numpy" and not _installed(self.tuning.executor):
            raise ConfigError(
                f"--executor {self.tuning.executor} needs packages that are not installed: run "
                f"`pip install 'backwire[{self.tuning.executor}]'`, or leave --executor out"
            )
        for name, module in _EXTRAS.items():
            if getattr(self, name) and not _installed(module):
                raise ConfigError(
                    f"--{name} needs packages that are not installed: run `pip install 'backwire[{name}]'`, or leave "
                    f"--{name} out"
                )

    @property
    def worker_count(self) -> int:
        """How many processes share the sessions: as many as asked for, but none that could not have a session."""
        if self.keeping.shared:
            return 1
        return min(self.workers or usable_cores(), self.limits.max_sessions)


PARTS: Mapping[str, type[Any]] = {
    "tuning": Tuning,
    "access": Access,
    "keeping": Keeping,
    "limits": Limits,
    "tenants": TenantLimits,
    "capacity": Capacity,
    "cluster": Cluster,
}
"""The parts of a configuration that have settings of their own, by their names in Config."""


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def _host(listen: str) -> str:
    return listen.rpartition(":")[0].strip("[]")


def _is_private(listen: str) -> bool:
    """Tells whether only this machine can connect."""
    host = _host(listen)
    if listen.startswith("unix:") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def version() -> str:
    """Returns the version of the distribution that this is a part of."""
    try:
        return metadata.version("backwire")
    except metadata.PackageNotFoundError:
        return "from a source tree that is not installed"
