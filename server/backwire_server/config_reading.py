"""Reads how a server is configured: flags first, then environment variables, then a file, then defaults.

Importing this module imports no numpy, so that the process can still be prepared for it.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from backwire_server.config import PARTS, Config, version
from backwire_server.config_file import read_settings
from backwire_server.config_options import OPTIONS
from backwire_server.config_told import Told, as_document, as_file
from backwire_server.config_values import (
    PREFIX,
    UNITS,
    ConfigError,
    Option,
    read_bytes,
    read_flag,
    read_optional_seconds,
)

FILE_VARIABLE = f"{PREFIX}CONFIG"


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
