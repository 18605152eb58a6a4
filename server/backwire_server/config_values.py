"""Option: a setting, and how the texts of settings become values."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backwire_server.sessions.replicas import is_replica

PREFIX = "BACKWIRE_"
"""What the environment variables of settings begin with."""

LOG_LEVELS = ("debug", "info", "warning", "error")
DURABILITIES = ("memory", "journal", "fsync")
EXECUTORS = ("numpy", "jax")
PRECISIONS = ("float32", "bfloat16", "float16")
LONGEST_SOCKET_PATH = 107  # bytes; the kernel takes no more

UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
UNITS |= {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_TIMES = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TRUTHS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class ConfigError(ValueError):
    """A setting that a server cannot have; the message says which and what it may be."""


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


def read_count(text: str) -> int:
    """Reads a whole number of at least 1."""
    if not re.fullmatch(r"[0-9][0-9_]*", text) or int(text) < 1:
        raise ConfigError(f"{text!r} is no whole number of at least 1")
    return int(text)


def read_count_from_zero(text: str) -> int:
    """Reads a whole number of at least 0."""
    return 0 if text == "0" else read_count(text)


def read_port(text: str) -> int:
    """Reads the number of a port, 1 to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ConfigError(f"{text!r} is no port; use a number of 1 to 65535")
    return int(text)


def read_port_or_any(text: str) -> int:
    """Reads the number of a port, or 0 for any that is free."""
    return 0 if text == "0" else read_port(text)


def read_bytes(text: str) -> int:
    """Reads a number of bytes of at least 1, such as 4096, 64MB or 256MiB."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?|)B?", text)
    value = int(float(match[1]) * UNITS[match[2]]) if match else 0
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


def read_durability(text: str) -> str:
    """Reads a level of durability."""
    if text.lower() not in DURABILITIES:
        raise ConfigError(f"{text!r} is no durability; use one of {', '.join(DURABILITIES)}")
    return text.lower()


def read_executor(text: str) -> str:
    """Reads the name of an executor."""
    if text.lower() not in EXECUTORS:
        raise ConfigError(f"{text!r} is no executor; use one of {', '.join(EXECUTORS)}")
    return text.lower()


def read_precision(text: str) -> str:
    """Reads the name of a precision of products."""
    if text.lower() not in PRECISIONS:
        raise ConfigError(f"{text!r} is no precision; use one of {', '.join(PRECISIONS)}")
    return text.lower()


def read_replica(text: str) -> str:
    """Reads the name of a replica."""
    if not is_replica(text):
        raise ConfigError(f"{text!r} is no name of a replica; use 1 to 24 of a-z, 0-9 and, within, -")
    return text


def read_cluster(text: str) -> str:
    """Reads the address of a Ray cluster: `auto`, `local`, or `HOST:PORT`."""
    return text if text in ("auto", "local") else read_host_port(text)


def read_url(text: str) -> str:
    """Reads the URL of an object store."""
    if re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", text) is None:
        raise ConfigError(f"{text!r} is no URL of an object store; write it like s3://bucket/path or file:///path")
    return text


def read_directory(text: str) -> str:
    """Reads the path of a directory, which need not exist."""
    if not text or "\0" in text:
        raise ConfigError(f"{text!r} is no path of a directory")
    return os.path.abspath(text)


def read_file(text: str) -> str:
    """Reads the path of a file that can be read."""
    if text.startswith("bw_") or "-----BEGIN" in text or "\0" in text:
        raise ConfigError(
            "this is what such a file has in it, and not the path of one; write it to a file, and name that"
        )
    path = os.path.abspath(text)
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise ConfigError(f"{text!r} is no file that can be read: {error.strerror}") from None


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


def read_host_port(text: str) -> str:
    """Reads `HOST:PORT`, or an IPv6 address in brackets and a port."""
    if text.startswith("unix:"):
        raise ConfigError(f"{text!r} is no HOST:PORT; write it like 127.0.0.1:9464")
    return read_address(text)


def socket_path(listen: str) -> str:
    """Returns the path of a `unix:PATH` or `unix:///PATH` address."""
    return listen.removeprefix("unix:").removeprefix("//")
