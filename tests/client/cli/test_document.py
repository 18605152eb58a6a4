"""docs/command-line.md says what the command line does."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from backwire._cli import _main

PAGE = (Path(__file__).parents[3] / "docs/command-line.md").read_text()
EXAMPLES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("backwire ")
]
WITHOUT_JSON = {"serve", "verify", "completion"}
"""Those that become another program, whose options are not known here, and one that prints a script."""


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (each for each in _main._parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(found.choices)


def rows(head: str) -> Iterator[list[str]]:
    """The rows of the table with this head, as cells."""
    table = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_command_has_a_row() -> None:
    assert [cells[0].strip("`") for cells in rows("command")] == list(commands())


def test_every_exit_code_has_a_row() -> None:
    assert {int(code): meaning for code, meaning in rows("code")} == _main.EXIT_CODES


def test_help_tells_every_exit_code() -> None:
    text = " ".join(_main._parser().format_help().split())
    for code, meaning in _main.EXIT_CODES.items():
        assert f"{code} {meaning}" in text


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_right_usage(example: str) -> None:
    words = shlex.split(example)
    end = words.index(">") if ">" in words else len(words)
    assert _main._parser().parse_args(words[1:end]).lines is not None


def test_every_command_that_tells_something_takes_json() -> None:
    takes = {name: "--json" in parser._option_string_actions for name, parser in commands().items()}
    assert {name for name, does in takes.items() if not does} == WITHOUT_JSON
