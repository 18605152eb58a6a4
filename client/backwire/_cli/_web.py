"""`backwire web`: a page on this machine that shows a server and its sessions."""

import argparse
import threading
from collections.abc import Iterator

import backwire
from backwire._cli import _options
from backwire._web import _server
from backwire._web._answers import Answers


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "--port",
        type=_port,
        default=0,
        help=f"where the page is, on {_server.HOST} alone (default: a port that is free)",
    )
    _options.add_json(parser)
    _options.add_target(parser, _options.RUNNING, timeout=10.0)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Serves the page until it is interrupted; yields its address."""
    with (
        backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client,
        _server.serving(Answers(client, options.target), options.port) as address,
    ):
        yield _options.as_json({"url": address}, indent=None) if options.json else address
        threading.Event().wait()


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 65535")
    return number
