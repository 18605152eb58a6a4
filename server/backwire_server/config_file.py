"""Reads settings from a TOML file: `name = value`, the values as on the command line, flat or in tables."""

import difflib
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from backwire_server.config_values import ConfigError

_HELP = "`python -m backwire_server --help` lists all"


def read_settings(path: str, names: Iterable[str], tables: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Returns the text of each setting in a file, by its name; raises ConfigError that names the file and the key.

    A setting is written above all tables, or in the one of `tables` that has its name. A name may be written with
    dashes, as the flag is. Values are strings, whole numbers, numbers and booleans.
    """
    known = list(names)
    found: dict[str, str] = {}
    for table, key, value in _entries(path, tables):
        name, place = key.replace("-", "_"), f"[{table}] {key}" if table else key
        if name not in known:
            raise ConfigError(f"{path}: there is no setting {place}{_near(name, known) or f'; {_HELP}'}")
        if table and name not in tables[table]:
            raise ConfigError(f"{path}: {key} is no setting of [{table}]; write it {_home(name, tables)}")
        if name in found:
            raise ConfigError(f"{path}: {name} is there twice, by another spelling or in a table; leave one out")
        if not isinstance(value, str | int | float):
            raise ConfigError(f'{path}: {place} is neither a string, a number nor a boolean; write it like {key} = "1"')
        found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _entries(path: str, tables: Collection[str]) -> Iterator[tuple[str, str, Any]]:
    """Yields table, key and value of each entry of a file, the table empty for those above all; raises ConfigError."""
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}") from None
    for key, value in document.items():
        if not isinstance(value, dict):
            yield "", key, value
            continue
        if key not in tables:
            all_tables = f"; there are {', '.join(f'[{table}]' for table in tables)}"
            raise ConfigError(f"{path}: there is no table [{key}]{_near(key, tables) or all_tables}")
        for name, inner in value.items():
            yield key, name, inner


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; {near[0]} is near" if near else ""


def _home(name: str, tables: Mapping[str, Collection[str]]) -> str:
    """Returns where a setting may be in a file with tables."""
    return next((f"below [{table}]" for table, names in tables.items() if name in names), "above all tables")
