"""How a server is configured: flags first, then environment variables, then defaults.

Importing this module imports no numpy, so that the process can still be prepared for it.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from ipaddress import ip_address
from typing import Any

from backwire_server.machine import Tuning, usable_cores
from backwire_server.sessions.limits import Limits

PREFIX = "BACKWIRE_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LONGEST_SOCKET_PATH = 107  # bytes; the kernel takes no more

LEAST_MESSAGE_BYTES = 4 << 20  # a chunk may have 2 MiB, and has a name and a shape besides

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_UNITS |= {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_TIMES = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TRUTHS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class ConfigError(ValueError):
    """A setting that a server cannot have; the message says which and what it may be."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The most calls of each kind in progress, and the bytes of requests that they hold together."""

    max_concurrent_calls: int = 64
    max_concurrent_streams: int = 16
    max_concurrent_pipelines: int = 128
    max_request_bytes: int = 1 << 30


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
    """A setting: its name as in Config, Tuning, Limits or Capacity, how its text is read, and what it means.

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


def read_count(text: str) -> int:
    """Reads a whole number of at least 1."""
    if not re.fullmatch(r"[0-9][0-9_]*", text) or int(text) < 1:
        raise ConfigError(f"{text!r} is no whole number of at least 1")
    return int(text)


def read_port(text: str) -> int:
    """Reads the number of a port, 1 to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ConfigError(f"{text!r} is no port; use a number of 1 to 65535")
    return int(text)


def read_bytes(text: str) -> int:
    """Reads a number of bytes of at least 1, such as 4096, 64MB or 256MiB."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?|)B?", text)
    value = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if value < 1:
        raise ConfigError(f"{text!r} is no number of bytes of at least 1; write it like 4096, 64MB or 256MiB")
    return value


def read_seconds(text: str) -> float:
    """Reads a time above zero, such as 2.5, 90s, 10m or 1d."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhd]|)", text)
    value = float(match[1]) * _TIMES[match[2]] if match else 0.0
    if not 0 < value < 1e9:
        raise ConfigError(f"{text!r} is no time above zero; write it like 2.5, 90s, 10m or 1d")
    return value


def read_optional_seconds(text: str) -> float | None:
    """Reads a time above zero, or `never` as None."""
    return None if text == "never" else read_seconds(text)


def read_flag(text: str) -> bool:
    """Reads yes or no."""
    if text.lower() not in _TRUTHS:
        raise ConfigError(f"{text!r} is neither true nor false")
    return _TRUTHS[text.lower()]


def read_log_level(text: str) -> str:
    """Reads a log level."""
    if text.lower() not in LOG_LEVELS:
        raise ConfigError(f"{text!r} is no log level; use one of {', '.join(LOG_LEVELS)}")
    return text.lower()


def read_address(text: str) -> str:
    """Reads `HOST:PORT`, an IPv6 address in brackets, or `unix:PATH`."""
    if text.startswith("unix:"):
        if not 0 < len(socket_path(text).encode()) <= LONGEST_SOCKET_PATH:
            raise ConfigError(f"{text!r} needs a path of 1 to {LONGEST_SOCKET_PATH} bytes after unix:")
        return text
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", text)
    if not match or int(match[2]) > 65535:
        raise ConfigError(
            f"{text!r} is no address; write it like 127.0.0.1:50051, [::1]:50051 or unix:/run/backwire.sock"
        )
    return text


def socket_path(listen: str) -> str:
    """Returns the path of a `unix:PATH` or `unix:///PATH` address."""
    return listen.removeprefix("unix:").removeprefix("//")


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
        Option("idle_ttl", read_optional_seconds, "TIME", "how long a session is kept after its last use, or never"),
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
        tuning = Tuning(**_take(given, Tuning))
        return Config(**given, tuning=tuning, limits=limits, capacity=capacity)
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
    owner: Any = next(kind() for kind in (Config, Tuning, Limits, Capacity) if option.name in _names(kind))
    value = getattr(owner, option.name)
    if option.read is read_bytes:
        unit = next(unit for unit in ("Gi", "Mi", "Ki", "") if value % _UNITS[unit] == 0)
        return f"{value // _UNITS[unit]}{unit}B"
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
