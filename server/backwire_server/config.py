"""How a server is configured: flags first, then environment variables, then defaults.

Importing this module imports no numpy, so that the process can still be prepared for it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from ipaddress import ip_address
from typing import Any

from backwire_server.config_values import (
    DURABILITIES,
    LOG_LEVELS,
    UNITS,
    ConfigError,
    read_address,
    read_bytes,
    read_count,
    read_directory,
    read_durability,
    read_flag,
    read_log_level,
    read_optional_seconds,
    read_port,
    read_seconds,
)
from backwire_server.machine import Tuning, usable_cores
from backwire_server.sessions.limits import Limits

PREFIX = "BACKWIRE_"

LEAST_MESSAGE_BYTES = 4 << 20  # a chunk may have 2 MiB, and has a name and a shape besides


@dataclass(frozen=True, slots=True)
class Capacity:
    """The most calls of each kind in progress, and the bytes of requests that they hold together."""

    max_concurrent_calls: int = 64
    max_concurrent_streams: int = 16
    max_concurrent_pipelines: int = 128
    max_request_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Keeping:
    """How sessions are kept on disk.

    Attributes:
        data_dir: Where; None for a server that keeps them in memory alone.
        durability: What acknowledged mutations of a session outlive that asks for nothing else, one of DURABILITIES.
        max_disk_bytes: The most bytes of files that all sessions have together; None for no limit.
        checkpoint_bytes: How many bytes of journal lead to another checkpoint.
    """

    data_dir: str | None = None
    durability: str = "journal"
    max_disk_bytes: int | None = None
    checkpoint_bytes: int = 128 << 20


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
        workers: How many processes share the sessions; None for one per core.
        worker_port: The first of the ports on which workers are reached directly from other machines; None for none.
        tuning: How each process uses the machine.
        keeping: How sessions are kept on disk.
        limits: What sessions are held to.
        capacity: What is taken on at a time.
    """

    listen: str = "127.0.0.1:50051"
    allow_plaintext: bool = False
    grace: float = 20.0
    exit_with_parent: bool = False
    log_level: str = "info"
    access_log: bool = False
    workers: int | None = None
    worker_port: int | None = None
    tuning: Tuning = field(default_factory=Tuning)
    keeping: Keeping = field(default_factory=Keeping)
    limits: Limits = field(default_factory=Limits)
    capacity: Capacity = field(default_factory=Capacity)

    def __post_init__(self) -> None:
        if not _is_private(self.listen) and not self.allow_plaintext:
            raise ConfigError(
                f"--listen {self.listen} can be reached from other machines, and the traffic is not encrypted; listen "
                "on 127.0.0.1 or a unix socket behind something that encrypts, or say --allow-plaintext"
            )
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

    @property
    def worker_count(self) -> int:
        """How many processes share the sessions: as many as asked for, but none that could not have a session."""
        return min(self.workers or usable_cores(), self.limits.max_sessions)


@dataclass(frozen=True, slots=True)
class Option:
    """A setting: its name as in Config, Tuning, Keeping, Limits or Capacity, how its text is read, and what it means.

    `unset` is what the help calls a default of None.
    """

    name: str
    read: Callable[[str], Any]
    metavar: str
    help: str
    unset: str = "never"

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()


OPTIONS: Mapping[str, Sequence[Option]] = {
    "the server": [
        Option("listen", read_address, "ADDRESS", "HOST:PORT or unix:PATH to serve on; port 0 finds a free one"),
        Option("allow_plaintext", read_flag, "", "serve without encryption where other machines can connect"),
        Option("grace", read_seconds, "TIME", "how long calls in progress may go on after a signal to end"),
        Option("exit_with_parent", read_flag, "", "end when standard input reaches its end"),
        Option("log_level", read_log_level, "LEVEL", f"from which level on to log: {', '.join(LOG_LEVELS)}"),
        Option("access_log", read_flag, "", "log every call"),
    ],
    "processes and the machine": [
        Option(
            "workers",
            read_count,
            "N",
            "how many processes share the sessions, behind the one address; 1 serves from a single process. Each takes "
            "an equal share of --max-sessions, --max-total-bytes and --max-request-bytes; other limits hold in each",
            unset="one per core",
        ),
        Option(
            "worker_port",
            read_port,
            "PORT",
            "the first of as many ports as there are workers, on which clients on other machines reach them directly",
            unset="none: only clients on this machine do",
        ),
        Option(
            "compute_threads",
            read_count,
            "N",
            "the threads of numerical libraries in each process",
            unset="what OMP_NUM_THREADS and its like say, or 1",
        ),
        Option("tune_blas", read_flag, "", "choose OpenBLAS kernels where OpenBLAS itself misjudges the CPU"),
        Option("tune_allocator", read_flag, "", "keep freed memory, up to 512MiB in each process, for large messages"),
    ],
    "sessions on disk": [
        Option(
            "data_dir",
            read_directory,
            "DIR",
            "keep sessions in this directory, so that they outlive the process; one server at a time may use it",
            unset="none: sessions are kept in memory alone",
        ),
        Option(
            "durability",
            read_durability,
            "LEVEL",
            "what acknowledged changes outlive unless a session asks for another level: "
            f"{', '.join(DURABILITIES)}, for nothing, the process and the machine; takes --data-dir",
        ),
        Option(
            "max_disk_bytes", read_bytes, "BYTES", "the most bytes of files that sessions have together", unset="none"
        ),
        Option("checkpoint_bytes", read_bytes, "BYTES", "how much journal leads to another checkpoint of a session"),
        Option("hibernate_after", read_seconds, "TIME", "how long a session stays in memory after its last use"),
        Option("max_awake_sessions", read_count, "N", "the most sessions in memory; the longest unused go first"),
    ],
    "limits on what clients may ask for": [
        Option("max_message_bytes", read_bytes, "BYTES", "the largest message that is accepted and sent"),
        Option(
            "max_pipeline_bytes", read_bytes, "BYTES", "the most bytes of requests that a Pipeline holds unanswered"
        ),
        Option("max_graph_nodes", read_count, "N", "the most nodes of a graph"),
        Option("max_parameters", read_count, "N", "the most parameters of a graph"),
        Option("max_parameter_bytes", read_bytes, "BYTES", "the most bytes of parameters and constants in a graph"),
        Option("max_passes", read_count, "N", "the most passes that a session keeps; the oldest expires"),
        Option("max_pass_bytes", read_bytes, "BYTES", "the most bytes that the passes of a session hold"),
        Option("pass_ttl", read_seconds, "TIME", "how long a pass is kept"),
        Option("max_sessions", read_count, "N", "the most sessions at a time"),
        Option("max_total_bytes", read_bytes, "BYTES", "the most bytes that all sessions hold together"),
        Option(
            "idle_ttl",
            read_optional_seconds,
            "TIME",
            "how long a session that is not durable is kept after its last use, or never",
        ),
    ],
    "limits on what is done at a time": [
        Option("max_concurrent_calls", read_count, "N", "the most unary calls in progress"),
        Option("max_concurrent_streams", read_count, "N", "the most streams in progress, Pipelines not counted"),
        Option("max_concurrent_pipelines", read_count, "N", "the most Pipelines open"),
        Option("max_request_bytes", read_bytes, "BYTES", "the most bytes of requests in progress"),
    ],
}
"""All settings, by the heading that the help has them under."""


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Returns the configuration; prints to standard error and exits with 2 for one that is wrong.

    `--help` and `--version` print and exit with 0. An empty environment variable counts as unset.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    try:
        for option in (option for group in OPTIONS.values() for option in group):
            text = environment.get(option.variable, "")
            if option.name not in given and text:
                given[option.name] = _read(option, text, option.variable)
        limits, capacity = Limits(**_take(given, Limits)), Capacity(**_take(given, Capacity))
        tuning, keeping = Tuning(**_take(given, Tuning)), Keeping(**_take(given, Keeping))
        return Config(**given, tuning=tuning, keeping=keeping, limits=limits, capacity=capacity)
    except ConfigError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backwire_server",
        description="Keeps computation graphs with their state and trains them over gRPC.",
        epilog="BYTES are written like 4096, 64MB or 256MiB, a TIME like 2.5, 90s, 10m or 1d. Every flag has an "
        "environment variable; the flag wins.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"backwire {_version()}")
    for heading, options in OPTIONS.items():
        group = parser.add_argument_group(heading)
        for option in options:
            _add(group, option)
    return parser


def _add(group: Any, option: Option) -> None:
    text = f"{option.help} [{option.variable}; {_default(option)}]".replace("%", "%%")
    if option.read is read_flag:
        group.add_argument(option.flag, action=argparse.BooleanOptionalAction, help=text)
        return

    def read(value: str) -> Any:
        try:
            return option.read(value)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    group.add_argument(option.flag, type=read, metavar=option.metavar, help=text)


def _default(option: Option) -> str:
    owner: Any = next(kind() for kind in (Config, Tuning, Keeping, Limits, Capacity) if option.name in _names(kind))
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


def _take(given: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    return {name: given.pop(name) for name in _names(kind) if name in given}


def _names(kind: type[Any]) -> list[str]:
    return [each.name for each in fields(kind)]


def _is_private(listen: str) -> bool:
    """Tells whether only this machine can connect."""
    host = listen.rpartition(":")[0].strip("[]")
    if listen.startswith("unix:") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _version() -> str:
    try:
        return metadata.version("backwire")
    except metadata.PackageNotFoundError:
        return "from a source tree that is not installed"
