"""Reads settings from a TOML file: `name = value`, the values as on the command line."""

import difflib
import tomllib
from collections.abc import Iterable

from backwire_server.config_values import ConfigError


def read_settings(path: str, names: Iterable[str]) -> dict[str, str]:
    """Returns the text of each setting in a file, by its name; raises ConfigError that names the file and the key.

    A name may be written with dashes, as the flag is. Values are strings, whole numbers, numbers and booleans.
    """
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}") from None
    known = list(names)
    found: dict[str, str] = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; {near[0]} is near" if near else "; `python -m backwire_server --help` lists all"
            raise ConfigError(f"{path}: there is no setting {key}{hint}")
        if name in found:
            raise ConfigError(f"{path}: {name} is there twice, once with dashes; leave one out")
        if not isinstance(value, str | int | float):
            raise ConfigError(f'{path}: {key} is neither a string, a number nor a boolean; write it like {key} = "1"')
        found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found
