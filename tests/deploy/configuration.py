"""Writes the tables of all settings in docs/configuration.md: `python -m tests.deploy.configuration FILE`."""

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from backwire_server.config import PARTS
from backwire_server.config_options import OPTIONS
from backwire_server.config_reading import default_text
from backwire_server.config_values import Option, read_flag

MARK = "<!-- What follows is written by `python -m tests.deploy.configuration docs/configuration.md`. -->\n"
TABLES = {each.name: part for part, kind in PARTS.items() for each in fields(kind)}
"""The table of a file that a setting may be in, by the name of the setting."""


def with_tables(text: str) -> str:
    """Returns a text with the tables of today after its mark; raises ValueError when it has none."""
    return text[: text.index(MARK) + len(MARK)] + "".join(f"{line}\n" for line in _tables())


def _tables() -> Iterator[str]:
    for heading, options in OPTIONS.items():
        yield from ("", f"## {heading[0].upper()}{heading[1:]}", "")
        yield from ("| flag, and variable | table | default | meaning |", "|---|---|---|---|")
        yield from (_row(option) for option in options)


def _row(option: Option) -> str:
    flag = option.flag if option.read is read_flag else f"{option.flag} {option.metavar}"
    table = f"`[{TABLES[option.name]}]`" if option.name in TABLES else ""
    cells = (f"`{flag}`<br>`{option.variable}`", table, default_text(option), option.help)
    return "".join(f"| {cell.replace('|', '&#124;')} " if cell else "| " for cell in cells) + "|"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text()))
