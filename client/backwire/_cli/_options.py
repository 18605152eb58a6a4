"""Options that several commands have, and how their texts become values."""

import argparse
import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

from backwire import _connect, _settings
from backwire._errors import BackwireError, InvalidRequestError
from backwire._wire import _channel

Shape = tuple[int, ...]

TOKEN_VARIABLE = "BACKWIRE_TOKEN"
"""The environment variable that has the token of all commands: in the arguments, other users could see it."""


class Credentials(TypedDict):
    """What identifies both ends of a connection."""

    token: str | None
    tls: _channel.TLS | bool | None


class Failed(Exception):
    """The command did what it should, and the answer is no: it exits with 1, and tells this text if there is one."""


RUNNING = f"localhost:{_channel.DEFAULT_PORT}"
"""The target of commands that are about a server that runs, where neither the environment nor a profile names one."""

PRIVATE = _connect.EMBEDDED
"""The target of commands that can do with a server of their own."""


def add_target(
    parser: argparse.ArgumentParser, default: str, *, timeout: float | None, inherited: bool = False
) -> None:
    """Adds the options of a connection; `inherited` where the parser's parent has them too, and the defaults."""
    usual = "start a private server" if default == PRIVATE else f"BACKWIRE_TARGET, or {default}"
    waits = "what the command usually takes" if timeout is None else f"{timeout:g}"
    parser.add_argument(
        "--target",
        default=argparse.SUPPRESS if inherited else PRIVATE if default == PRIVATE else None,
        help=f"host:port or unix:/path of a server (default: {usual})",
    )
    parser.add_argument(
        "--timeout",
        type=above_zero,
        default=argparse.SUPPRESS if inherited else timeout,
        metavar="SECONDS",
        help=f"how long to wait (default: {waits})",
    )
    unset = argparse.SUPPRESS if inherited else None
    for flag, metavar, text in (
        ("--ca", "FILE", "connect encrypted, and trust these authorities (PEM) to vouch for the server"),
        ("--server-name", "NAME", "the name that the server's certificate bears, where it is not the target's"),
        ("--certificate", "FILE", "this client's certificate (PEM), for servers that ask for one; goes with --key"),
        ("--key", "FILE", "the key of this client's certificate (PEM)"),
    ):
        parser.add_argument(flag, metavar=metavar, default=unset, help=text)


def add_json(parser: argparse.ArgumentParser, *, inherited: bool = False) -> None:
    """Adds the option that prints JSON, in place of what is meant to be read."""
    default = argparse.SUPPRESS if inherited else False
    parser.add_argument("--json", action="store_true", default=default, help="print JSON")


def settle(options: argparse.Namespace) -> None:
    """Has a command that is about a server go where `connect` goes without a target, unless one was given.

    Raises InvalidRequestError for an environment or a profile that cannot be used.
    """
    options.usual = _settings.Settings()
    if getattr(options, "target", "") is None:
        found = _settings.find(None)
        if found.target not in (None, PRIVATE):
            options.usual = found
        options.target = options.usual.target or RUNNING


def add_shapes(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds the option that gives the shape of an input, as often as it is given, with this help."""
    parser.add_argument("--shape", type=shape, action="append", default=[], metavar="NAME=1,3,224,224", help=text)


def credentials(options: argparse.Namespace) -> Credentials:
    """Returns how to connect as the options of `add_target` say, with the token of the environment, for `connect`.

    Raises InvalidRequestError for files that cannot be read or do not go together.
    """
    if options.target == PRIVATE:
        return {"token": None, "tls": None}
    token = os.environ.get(TOKEN_VARIABLE) or options.usual.token
    files = [getattr(options, name) for name in ("ca", "key", "certificate")]
    if not (any(files) or options.server_name):
        return {"token": token, "tls": options.usual.tls}
    authorities, key, certificate = (path and _read(path) for path in files)
    tls = _channel.TLS(
        root_certificates=authorities,
        private_key=key,
        certificate_chain=certificate,
        server_name=options.server_name,
    )
    return {"token": token, "tls": tls}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}; name a PEM file") from None


@contextlib.contextmanager
def usable(path: str) -> Iterator[None]:
    """Turns what the system says of a file into an error that is told in one line."""
    try:
        yield
    except BackwireError:  # some are OSError, too
        raise
    except OSError as error:
        raise InvalidRequestError(f"{path}: {error.strerror}; give a file that can be used") from None


def positive(text: str) -> int:
    """Returns a whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def above_zero(text: str) -> float:
    """Returns a number above 0."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def seed(text: str) -> int:
    """Returns an unsigned 64-bit number."""
    number = int(text)
    if not 0 <= number < 2**64:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 2**64 - 1")
    return number


def shape(text: str) -> tuple[str, Shape]:
    """Returns the name and the sizes that `name=1,3,224,224` gives; `name=` is a scalar."""
    name, equals, sizes = text.rpartition("=")
    try:
        dims = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    except ValueError:
        dims = (-1,)
    if not (name and equals) or any(dim < 0 for dim in dims):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=1,3,224,224")
    return name, dims


def as_json(document: Any, *, indent: int | None = 2) -> str:
    """Returns the document as JSON, in one line for no indent.

    A number that is not finite becomes null, for which JSON has no other word.
    """
    return json.dumps(_finite(document), indent=indent, allow_nan=False)


def count(number: int) -> str:
    """Returns a number with thousands apart."""
    return f"{number:,}"


def scaled(number: int, unit: str) -> str:
    """Returns a number to three digits with a decimal prefix, such as `31.4 kB`."""
    power = min(len(str(abs(number))) - 1, 15) // 3
    prefix = ("", "k", "M", "G", "T", "P")[power]
    return f"{number / 1000**power:.3g} {prefix}{unit}" if power else f"{number} {unit}"


def table(rows: Sequence[tuple[str, ...]], *, right: tuple[int, ...] = ()) -> list[str]:
    """Returns rows as lines with aligned columns, those in `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{'>' if at in right else '<'}{widths[at]}}" for at, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def _finite(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
