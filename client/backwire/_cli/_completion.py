"""`backwire completion`: prints the script with which a shell completes commands, options and files."""

import argparse
from collections.abc import Callable, Iterator

from backwire._extras import needed

SHELLS = ("bash", "zsh", "fish")

_FILES = {"FILE", "MODEL.onnx", "DATA.npz", "DIR"}
"""What an argument is called, in help, that takes a file or a folder."""


def add_options(parser: argparse.ArgumentParser, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Adds the command's options to its parser; `whole` makes the parser of all commands."""
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(whole=whole)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yields the script; raises MissingExtraError where shtab is not installed."""
    shtab = needed("shtab", "cli")
    parser: argparse.ArgumentParser = options.whole()
    for action in _actions(parser):
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    yield shtab.complete(parser, shell=options.shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the options and arguments of a parser and of all below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
