"""The command line: `backwire serve`, `demo`, `describe`, `check-gradients`, `health`, `ops`, `sessions`, `token`..."""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import backwire
from backwire._cli import (
    _bench,
    _check,
    _completion,
    _demo,
    _describe,
    _graph,
    _options,
    _server,
    _sessions,
    _tokens,
    _top,
    _train,
    _watch,
    _web,
)
from backwire._errors import BackwireError

_SERVER_COMMANDS = {"serve": "backwire_server", "verify": "backwire_server.storage.verify"}

EXIT_CODES = {
    0: "done; for health: the server is serving",
    1: "failed; for health: it is not serving; for demo: the accuracy is too low; for check-gradients: an error is "
    "above the tolerance; for verify: a session is damaged",
    2: "wrong usage; for verify: the directory cannot be read; for serve: a setting is wrong",
    130: "interrupted",
}
"""What the program's exit codes mean."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code, which `backwire --help` lists; `serve` and `verify` do not return."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == ["config", "check"]:
        _server.check_config(given[2:])
    if given[:1] and given[0] in _SERVER_COMMANDS:
        _server.become(_SERVER_COMMANDS[given[0]], given[1:])
    options = _parser().parse_args(given)
    try:
        _options.settle(options)
        for line in options.lines(options):
            print(line, flush=True)
    except (BackwireError, _options.Failed) as error:
        if str(error):
            print(f"backwire: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands; what it makes of arguments has `lines`, which yields what to print."""
    formatter = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(
        prog="backwire",
        description="Gradient computation as a service.",
        epilog=_exit_codes(),
        formatter_class=formatter,
    )
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = partial(_command, commands)

    commands.add_parser("serve", help="start a server; `backwire serve --help` lists its options", add_help=False)

    command(
        "demo",
        _demo.add_options,
        _demo.lines,
        help="train a network on handwritten digits",
        description="Trains a network on scikit-learn's handwritten digits through a server, and draws how it went.",
    )

    command(
        "describe",
        _describe.add_options,
        _describe.lines,
        help="tell what training a model takes",
        description="Tells the shapes, parameters, work, memory and traffic of training an ONNX model.",
    )

    command(
        "train",
        _train.add_options,
        _train.lines,
        help="train a model on arrays, and write it back",
        description="Trains an ONNX model on the arrays of a file, and writes it as ONNX again.",
    )

    command(
        "check-gradients",
        _check.add_options,
        _check.lines,
        help="compare a model's gradients with finite differences",
        description="Compares the gradients of an ONNX model with finite differences. Exits with 1 when an error is "
        "above the tolerance.",
    )

    command(
        "graph",
        _graph.add_options,
        _graph.lines,
        help="draw what a model computes, and how gradients go back",
        description="Draws the graph of an ONNX model with the shapes of its values, and beside it the way of the "
        "gradients: as SVG, in Graphviz's language, or as Mermaid.",
    )

    command(
        "health",
        _server.add_health_options,
        _server.health,
        help="tell whether a server is serving",
        description="Prints the status of a server. Exits with 0 when it is serving, and with 1 otherwise.",
    )

    command(
        "ops",
        _server.add_ops_options,
        _server.ops,
        help="list the operators of a server",
        description="Lists the operators that a graph may have, or tells all about those that are named.",
    )

    command(
        "sessions",
        _sessions.add_options,
        _sessions.lines,
        help="list, show, delete, fork, move, export and import the sessions of a server",
        description="Lists all sessions, oldest first; or does with one what a command says.",
    )

    command(
        "top",
        _top.add_options,
        _top.lines,
        help="show what a server has to do, and its busiest sessions",
        description="Shows the load of a server and its sessions, those with most steps per second first, until it is "
        "interrupted. Without a terminal, or without rich (pip install 'backwire[cli]'), it prints one table.",
    )

    command(
        "watch",
        _watch.add_options,
        _watch.lines,
        help="show the loss, gradient norm and speed of a session while it is trained",
        description="Shows the last steps of a session, of whichever client, until it is interrupted. Without a "
        "terminal, or without rich (pip install 'backwire[cli]'), it prints a line whenever there were steps. Looking "
        "on is no use of the session: it neither wakes it nor keeps it in memory.",
    )

    command(
        "web",
        _web.add_options,
        _web.lines,
        help="show a server, its sessions, their curves and graphs in a browser",
        description="Serves a page to browsers on this machine, until it is interrupted, and prints its address, which "
        "has a key. It asks the server with this command's token, and changes nothing.",
    )

    command(
        "bench",
        _bench.add_options,
        _bench.lines,
        help="measure how fast a server answers and trains",
        description="Times calls of a small network, one after another and pipelined, and large tensors. Ratios of one "
        "run tell more than its times.",
    )

    commands.add_parser(
        "verify",
        help="replay what a data directory has and compare; `backwire verify --help` tells more",
        add_help=False,
    )

    command(
        "config",
        _server.add_config_options,
        _server.config,
        help="`backwire config check` prints every setting of a server and where it comes from",
        description="Checks the configuration of a server without starting it; takes the options of `backwire serve`.",
    )

    command(
        "token",
        _tokens.add_options,
        _tokens.lines,
        help="make, list and revoke the tokens that let clients in",
        description="Makes, lists and revokes the tokens of a file that `backwire serve --tokens FILE` reads.",
    )

    command(
        "completion",
        partial(_completion.add_options, whole=_parser),
        _completion.lines,
        help="print a script that makes a shell complete these commands",
        description="Prints the script with which a shell completes commands and options; docs/command-line.md says "
        "where to put it. Needs shtab (pip install 'backwire[cli]').",
    )

    command("version", _options.add_json, _version, help="print the version")
    return whole


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    add_options: Callable[[argparse.ArgumentParser], None],
    lines: Callable[[argparse.Namespace], Iterable[str]],
    **texts: Any,
) -> None:
    """Adds a command that prints lines; `texts` are the help and the description of its parser."""
    parser = commands.add_parser(name, **texts)
    add_options(parser)
    parser.set_defaults(lines=lines)


def _exit_codes() -> str:
    """Returns the exit codes as the help shows them."""
    told = (
        textwrap.fill(text, 105, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7)
        for code, text in EXIT_CODES.items()
    )
    return "\n".join(["exit codes:", *told])


def _version(options: argparse.Namespace) -> Iterator[str]:
    version = backwire.__version__
    yield _options.as_json({"version": version}) if options.json else f"backwire {version}"
