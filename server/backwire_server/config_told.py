"""How settings are told: as a configuration file that has them all, and as JSON."""

import json
from collections.abc import Iterable
from typing import Any

from backwire_server.config_values import Option

Told = tuple[Option, Any, str]
"""A setting, its value as a file could have it, None where there is none, and where it comes from."""


def as_file(settings: Iterable[Told]) -> str:
    """Returns a line for each setting with its origin as a comment; one without a value is all comment."""
    return "".join(map(_line, settings))


def as_document(settings: Iterable[Told]) -> str:
    """Returns the value and the origin of each setting by its name."""
    told = {option.name: {"value": value, "origin": origin} for option, value, origin in settings}
    return f"{json.dumps(told, indent=2)}\n"


def _line(told: Told) -> str:
    option, value, origin = told
    if value is None:
        return f"# {option.name} = {option.unset}  # {origin}\n"
    text = str(value).lower() if isinstance(value, bool | int | float) else json.dumps(value, ensure_ascii=False)
    return f"{option.name} = {text}  # {origin}\n"
