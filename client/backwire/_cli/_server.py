"""`backwire health`, `ops` and `config check`, and the commands that become a process of the server."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

import numpy as np

import backwire
from backwire._cli import _options
from backwire._errors import UnknownNameError
from backwire._inspection import OpInfo
from backwire._wire import _channel, _health


def add_health_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `health` to its parser."""
    parser.add_argument(
        "--alive",
        action="store_true",
        help="succeed where the server answers at all, though it may not be serving: for a liveness probe",
    )
    _options.add_json(parser)
    _options.add_target(parser, _options.RUNNING, timeout=3.0)


def add_ops_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `ops` to its parser."""
    parser.add_argument("names", nargs="*", metavar="OP", help="an operator to tell all about, such as Gemm")
    _options.add_json(parser)
    _options.add_target(parser, _options.RUNNING, timeout=10.0)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `config` to its parser."""
    parser.add_argument("check", choices=["check"])
    _options.add_json(parser)


def health(options: argparse.Namespace) -> Iterator[str]:
    """Yields the status of the server; raises Failed when it is not serving, and ought to be."""
    channel = _channel.open_channel(options.target, **_options.credentials(options))
    with contextlib.closing(channel):
        status = _health.health(_health.checking(channel), timeout=options.timeout)
    yield _options.as_json({"target": options.target, "status": status}) if options.json else status
    if status != "SERVING" and not options.alive:
        raise _options.Failed


def ops(options: argparse.Namespace) -> Iterator[str]:
    """Yields the operators, or all about those that are named; raises UnknownNameError when one is not there."""
    with backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client:
        found = client.ops()
    known = [found[name] for name in options.names if name in found] if options.names else list(found.values())
    if options.json:
        yield _options.as_json([_document(each) for each in known])
    else:
        yield from (f"{each}\n" if options.names else f"{each.name:<28} {each.doc.splitlines()[0]}" for each in known)
    unknown = [name for name in options.names if name not in found]
    if unknown:
        raise UnknownNameError(f"the server has no op {', '.join(map(repr, unknown))}; `backwire ops` lists all")


def config(options: argparse.Namespace) -> NoReturn:
    """Checks the configuration where `main` has not done so already, since an option stands before `check`."""
    check_config(["--json"] if options.json else [])


def check_config(arguments: Sequence[str]) -> NoReturn:
    """Becomes a process that checks the configuration of a server."""
    become("backwire_server", ["--check-config", *arguments])


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Becomes a process of the server's, which sets its environment before it loads numpy."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def _document(op: OpInfo) -> dict[str, Any]:
    attributes = [
        {**asdict(each), "default": each.default.tolist() if isinstance(each.default, np.ndarray) else each.default}
        for each in op.attributes
    ]
    return {**asdict(op), "attributes": attributes}
