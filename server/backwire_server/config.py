"""How a server is configured: flags first, then environment variables, then a file, then defaults.

Importing this module imports no numpy, so that the process can still be prepared for it.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

from backwire_server.config_file import read_settings
from backwire_server.config_options import OPTIONS, PREFIX, Option
from backwire_server.config_told import Told, as_document, as_file
from backwire_server.config_values import (
    UNITS,
    ConfigError,
    read_bytes,
    read_flag,
    read_optional_seconds,
)
from backwire_server.machine import Tuning, usable_cores
from backwire_server.sessions.limits import UNLIMITED, Limits, TenantLimits

FILE_VARIABLE = f"{PREFIX}CONFIG"

_EXTRAS = {"tracing": "opentelemetry.sdk", "reflection": "grpc_reflection", "channelz": "grpc_channelz"}
"""Settings that need an extra of the distribution of the same name, each with a module that comes with it."""

EVERYWHERE = ("0.0.0.0", "::")
"""Hosts to listen on which are none to connect to."""

LEAST_MESSAGE_BYTES = 4 << 20  # a chunk may have 2 MiB, and has a name and a shape besides


@dataclass(frozen=True, slots=True)
class Capacity:
    """What is taken on at a time.

    Attributes:
        max_concurrent_calls: The most unary calls in progress.
        max_concurrent_streams: The most streams in progress, Pipelines not counted.
        max_concurrent_pipelines: The most Pipelines open.
        max_concurrent_lookups: The most calls in progress that compute nothing, such as GetSession.
        max_concurrent_computations: How many sessions compute at a time; None for as many as there are cores.
        max_helpers: The most processes that compute parts of batches for sessions; None for one less than cores.
        max_request_bytes: The most bytes of requests in progress.
        max_calls_per_second: The most calls, and requests on Pipelines, that begin in a second; None for no limit.
        max_connections: The most connections of clients to a process.
        keepalive: After how many seconds of silence a connection is asked for a sign of life.
        patience: How many seconds a call may wait for its client when others want its place.
    """

    max_concurrent_calls: int = 64
    max_concurrent_streams: int = 16
    max_concurrent_pipelines: int = 128
    max_concurrent_lookups: int = 16
    max_concurrent_computations: int | None = None
    max_helpers: int | None = None
    max_request_bytes: int = 1 << 30
    max_calls_per_second: int | None = None
    max_connections: int = 4_096
    keepalive: float = 60.0
    patience: float = 10.0

    @property
    def max_concurrent(self) -> int:
        """The most calls of all kinds in progress."""
        return (
            self.max_concurrent_calls
            + self.max_concurrent_streams
            + self.max_concurrent_pipelines
            + self.max_concurrent_lookups
        )

    @property
    def computations(self) -> int:
        """How many sessions compute at a time."""
        return self.max_concurrent_computations or usable_cores()


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in. All are paths of files.

    Attributes:
        tls_certificate: The server's certificate and those above it; None for traffic that is not encrypted.
        tls_key: The key of that certificate.
        client_ca: The authorities that the certificates of clients must come from; None asks clients for none.
        peer_ca: The authorities that those of other servers must come from; None for those of the system.
        tokens: The tokens that let clients in; None lets everybody in.
    """

    tls_certificate: str | None = None
    tls_key: str | None = None
    client_ca: str | None = None
    peer_ca: str | None = None
    tokens: str | None = None


@dataclass(frozen=True, slots=True)
class Keeping:
    """How sessions are kept on disk.

    Attributes:
        data_dir: Where; None for a server that keeps them in memory alone.
        durability: What acknowledged mutations of a session outlive that asks for nothing else, one of DURABILITIES.
        max_disk_bytes: The most bytes of files that all sessions have together; None for no limit.
        checkpoint_bytes: How many bytes of journal lead to another checkpoint.
        checkpoint_url: The object store that checkpoints are copied to; None for none.
        shared: Whether other servers use the same directory, of whom each may serve any session.
        lease: After how many seconds without a sign of life others take the sessions of a server over.
        advertise: Where clients reach this server itself; None for the address it listens on.
    """

    data_dir: str | None = None
    durability: str = "journal"
    max_disk_bytes: int | None = None
    checkpoint_bytes: int = 128 << 20
    checkpoint_url: str | None = None
    shared: bool = False
    lease: float = 1.0
    advertise: str | None = None


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
        if encrypted and self.worker_port is not None:
            raise ConfigError("--worker-port does not go with --tls-certificate: workers' ports are not encrypted")
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
        if self.access.peer_ca is not None and (self.access.tls_certificate is None or not keeping.shared):
            raise ConfigError("--peer-ca goes with --shared and --tls-certificate; give them, too, or leave it out")
        if not keeping.shared:
            return
        if self.replica is None or keeping.data_dir is None:
            raise ConfigError("--shared takes --replica and --data-dir; give each server a name, and all one directory")
        if self.workers not in (None, 1):
            raise ConfigError("--shared goes with one worker; start more servers on the directory instead of --workers")
        if keeping.max_disk_bytes is not None:
            raise ConfigError("--max-disk-bytes does not go with --shared; limit the file system of the directory")
        if keeping.advertise is None and _host(self.listen) in EVERYWHERE:
            raise ConfigError(
                f"--listen {self.listen} is no address at which clients reach this server; say which is by --advertise"
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
}
"""The parts of a configuration that have settings of their own, by their names in Config."""


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Returns the configuration; prints to standard error and exits with 2 for one that is wrong.

    `--help` and `--version` print and exit with 0; so does `--check-config`, after it has printed each setting and its
    origin, with `--json` as a document. An empty environment variable counts as unset.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    path, checking = given.pop("config", None), given.pop("check_config", False)
    as_json = given.pop("json", False)
    if as_json and not checking:
        parser.error("--json goes with --check-config; leave it out")
    options = [option for group in OPTIONS.values() for option in group]
    origins = dict.fromkeys(given, "flag")
    try:
        path = path or environment.get(FILE_VARIABLE, "")
        written = read_settings(path, [option.name for option in options], _tables()) if path else {}
        for option in options:
            for text, place in (
                (environment.get(option.variable, ""), option.variable),
                (written.get(option.name), path),
            ):
                if option.name not in given and text:
                    given[option.name] = _read(option, text, place if place != path else f"{path}: {option.name}")
                    origins[option.name] = place
        config = _made(given)
    except ConfigError as error:
        parser.error(str(error))
    if checking:
        told = list(_settings(config, options, origins))
        sys.stdout.write(as_document(told) if as_json else as_file(told))
        parser.exit()
    return config


def _made(given: Mapping[str, Any]) -> Config:
    parts = {
        part: kind(**{name: given[name] for name in _names(kind) if name in given}) for part, kind in PARTS.items()
    }
    return Config(**{name: given[name] for name in _names(Config) if name in given}, **parts)


def _settings(config: Config, options: Sequence[Option], origins: Mapping[str, str]) -> Iterator[Told]:
    """Yields each setting with its value, as a configuration file could have it, and where that comes from."""
    parts = (config, *(getattr(config, part) for part in PARTS))
    for option in options:
        value = next(getattr(part, option.name) for part in parts if hasattr(part, option.name))
        never = value is None and option.read is read_optional_seconds
        yield option, "never" if never else value, origins.get(option.name, "default")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backwire_server",
        description="Keeps computation graphs with their state and trains them over gRPC.",
        epilog="BYTES are written like 4096, 64MB or 256MiB, a TIME like 2.5, 90s, 10m or 1d. Every flag has an "
        "environment variable, and may be in the file of --config; the flag wins, then the variable.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"backwire {version()}")
    parser.add_argument("--config", metavar="FILE", help=f'a TOML file of lines like grace = "20s" [{FILE_VARIABLE}]')
    parser.add_argument("--check-config", action="store_true", help="print every setting and its origin, and end")
    parser.add_argument("--json", action="store_true", help="print those of --check-config as JSON")
    for heading, options in OPTIONS.items():
        group = parser.add_argument_group(heading)
        for option in options:
            _add(group, option)
    return parser


def _add(group: Any, option: Option) -> None:
    text = f"{option.help} [{option.variable}; {default_text(option)}]".replace("%", "%%")
    if option.read is read_flag:
        group.add_argument(option.flag, action=argparse.BooleanOptionalAction, help=text)
        return

    def read(value: str) -> Any:
        try:
            return option.read(value)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    group.add_argument(option.flag, type=read, metavar=option.metavar, help=text)


def default_text(option: Option) -> str:
    """Returns the default of a setting as the help tells it: in a unit, or in words for none."""
    kinds: list[type[Any]] = [Config, *PARTS.values()]
    owner: Any = next(kind() for kind in kinds if option.name in _names(kind))
    value = getattr(owner, option.name)
    if option.read is read_bytes and value is not None:
        unit = next(unit for unit in ("Gi", "Mi", "Ki", "") if value % UNITS[unit] == 0)
        return f"{value // UNITS[unit]}{unit}B"
    if option.read is read_flag:
        return "yes" if value else "no"
    return option.unset if value is None else f"{value:g}s" if isinstance(value, float) else str(value)


def _read(option: Option, text: str, place: str) -> Any:
    try:
        return option.read(text)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _tables() -> dict[str, list[str]]:
    return {part: _names(kind) for part, kind in PARTS.items()}


def _names(kind: type[Any]) -> list[str]:
    return [each.name for each in fields(kind)]


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
