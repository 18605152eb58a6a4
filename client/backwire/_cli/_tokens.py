"""`backwire token`: makes the tokens that let clients in, lists those of a file, and takes them away again."""

import argparse
import hashlib
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock

from backwire._cli import _options
from backwire._cli._tokens_file import Entry, added, change_file, entries, read_file, without
from backwire._errors import InvalidRequestError

Command = Callable[[argparse.Namespace], "Printed"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,47}", re.ASCII)
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?", re.ASCII)
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command says: lines for standard output, and lines for standard error."""

    out: tuple[str, ...] = ()
    err: tuple[str, ...] = ()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the commands to the parser; one must be given."""
    _options.add_json(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    new = _add(commands, "new", _new, "make a token, print it, and add what a server must know of it to a file")
    new.add_argument("--tenant", type=tenant, required=True, help="whose sessions it is for")
    new.add_argument("--scope", choices=["read", "write", "admin"], required=True, help="what it allows")
    new.add_argument("--name", type=name, help="what it is called in logs (default: TENANT-SCOPE)")
    new.add_argument("--expires", type=duration, metavar="TIME", help="how long it is good, like 90d (default: always)")
    new.add_argument("--file", help="the server's tokens file (default: print the entry to standard error)")
    _add(commands, "list", _list, "list the tokens of a file").add_argument("--file", required=True)
    revoke = _add(commands, "revoke", _revoke, "take away the token of this id, or all of this name")
    revoke.add_argument("--file", required=True)
    revoke.add_argument("token", metavar="NAME_OR_ID")


def lines(options: argparse.Namespace) -> tuple[str, ...]:
    """Runs the command, writes what is not its result to standard error, and returns its result."""
    printed = run(options)
    sys.stderr.writelines(f"{line}\n" for line in printed.err)
    return printed.out


def run(options: argparse.Namespace) -> Printed:
    """Does what the command says; raises InvalidRequestError when the file cannot be used or has no such token."""
    command: Command = options.command
    return command(options)


def tenant(text: str) -> str:
    """Returns a name that a tenant may have."""
    if not _TENANT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no tenant; use 1 to 24 of a-z, 0-9 and, within, -")
    return text


def name(text: str) -> str:
    """Returns a name that a token may have."""
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name; use 1 to 48 letters, digits and ._@-")
    return text


def duration(text: str) -> timedelta:
    """Returns a time of minutes, hours or days, such as `90d`."""
    match = re.fullmatch(r"([0-9]{1,8})([mhd])", text, re.ASCII)
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < length <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no time up to 36500d; write it like 30m, 12h or 90d")
    return length


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", word: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(word, help=text, description=f"{text[0].upper()}{text[1:]}.")
    _options.add_json(parser, inherited=True)
    parser.set_defaults(command=command)
    return parser


def _new(options: argparse.Namespace) -> Printed:
    public = secrets.token_hex(8)
    token = f"bw_{public}_{secrets.token_urlsafe(32)}"
    entry = [
        "[[token]]",
        f'id = "{public}"',
        f'name = "{options.name or f"{options.tenant}-{options.scope}"}"',
        f'tenant = "{options.tenant}"',
        f'scope = "{options.scope}"',
        f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"',
    ]
    if options.expires:
        entry.append(f"expires = {(datetime.now(UTC) + options.expires).strftime(_TIME)}")
    text = "\n".join(entry)
    told = (_options.as_json({"token": token, **_facts(entries(text)[0])}) if options.json else token,)
    if options.file is None:
        return Printed(told, () if options.json else tuple(entry))
    change_file(options.file, lambda before: added(before, text))
    return Printed(told, (f"backwire: added {public} to {options.file}; the token is not shown again",))


def _list(options: argparse.Namespace) -> Printed:
    found = entries(read_file(options.file))
    if options.json:
        return Printed((_options.as_json([_facts(each) for each in found]),))
    head = ("ID", "NAME", "TENANT", "SCOPE", "EXPIRES")
    return Printed(tuple(_options.table([head, *map(_row, found)])))


def _facts(entry: Entry) -> Entry:
    """Returns an entry with texts and numbers alone, for JSON."""
    return {key: each.isoformat() if isinstance(each, date | clock) else each for key, each in entry.items()}


def _row(entry: Entry) -> tuple[str, ...]:
    return (*(str(entry.get(key, "?")) for key in ("id", "name", "tenant", "scope")), _expires(entry))


def _expires(entry: Entry) -> str:
    moment = entry.get("expires")
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        return "never" if moment is None else "?"
    past = " (expired)" if moment <= datetime.now(UTC) else ""
    return f"{moment.astimezone(UTC).strftime(_TIME)}{past}"


def _revoke(options: argparse.Namespace) -> Printed:
    gone: list[str] = []

    def change(text: str) -> str:
        found = entries(text)
        chosen = [each for each in found if each.get("id") == options.token]
        chosen = chosen or [each for each in found if each.get("name") == options.token]
        if not chosen:
            raise InvalidRequestError(
                f"{options.file} has no token of this id or name; `backwire token list --file {options.file}` lists all"
            )
        if len({each.get("tenant") for each in chosen}) > 1:
            raise InvalidRequestError("several tenants have a token of this name; give the id of the one you mean")
        gone.extend(str(each.get("id")) for each in chosen)
        return without(text, chosen)

    change_file(options.file, change)
    if options.json:
        return Printed((_options.as_json({"revoked": gone}),))
    return Printed(tuple(f"revoked {public}" for public in gone))
