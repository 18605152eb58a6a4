"""`backwire sessions`: lists sessions, shows one, deletes it, branches from it, moves it to a server or a file."""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import backwire
from backwire._cli import _options
from backwire._client import Client
from backwire._info import CheckpointInfo, SessionInfo

Command = Callable[[Client, argparse.Namespace], Iterator[str]]

_HEAD = ("SESSION", "STEP", "PENDING", "PARAMETERS", "PASSES", "CREATED")
_ROW = "{:<36} {:>8} {:>8} {:>12} {:>7}  {}"
_TIME = "%Y-%m-%d %H:%M:%SZ"
_TRANSFER_SECONDS = 600.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the commands to the parser; without one, sessions are listed."""
    _options.add_json(parser)
    _options.add_target(parser, _options.RUNNING, timeout=None)
    parser.set_defaults(command=_list)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add(commands, "list", _list, "list all sessions, oldest first; what is done without a command")
    _add(commands, "show", _show, "tell what a session is, with its digest and checkpoints").add_argument("session")
    _add(commands, "delete", _delete, "delete a session, with all that is kept of it").add_argument("session")
    _add(commands, "fork", _fork, "make a branch of a session, and print its id").add_argument("session")
    move = _add(commands, "move", _move, "have another of the servers that share a directory have a session")
    move.add_argument("session")
    move.add_argument("--to", metavar="REPLICA", required=True, help="the name that server was given as --replica")
    export = _add(commands, "export", _export, "write a whole session to a file")
    export.add_argument("session")
    export.add_argument("file", metavar="FILE")
    imported = _add(commands, "import", _import, "make a session of such a file, and print its id")
    imported.add_argument("file", metavar="FILE")
    imported.add_argument("--durability", choices=["memory", "journal", "fsync"], help="default: that of the server")


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Does what the command says, and yields what is to be printed."""
    seconds = options.timeout or (_TRANSFER_SECONDS if options.command in (_export, _import) else 10.0)
    with backwire.connect(options.target, timeout=seconds, **_options.credentials(options)) as client:
        yield from options.command(client, options)


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    _options.add_json(parser, inherited=True)
    _options.add_target(parser, _options.RUNNING, timeout=None, inherited=True)
    parser.set_defaults(command=command)
    return parser


def _list(client: Client, options: argparse.Namespace) -> Iterator[str]:
    if options.json:
        yield _options.as_json([_document(each) for each in client.sessions()])
        return
    sessions = client.sessions()
    first = next(sessions, None)  # before the head, which is not for a server that cannot be reached
    yield _ROW.format(*_HEAD)
    for each in itertools.chain([] if first is None else [first], sessions):
        passes = len(each.forward_ids)
        yield _ROW.format(each.id, each.step, each.contributions, _count(each), passes, each.created.strftime(_TIME))


def _show(client: Client, options: argparse.Namespace) -> Iterator[str]:
    session = client.session(options.session)
    info, checkpoints, digest = session.info(), session.checkpoints(), session.digest()
    if options.json:
        kept = [{**asdict(each), "created": each.created.isoformat()} for each in checkpoints]
        yield _options.as_json({**_document(info), "digest": digest, "checkpoints": kept})
        return
    rows = [
        ("session", info.id),
        ("created", info.created.strftime(_TIME)),
        ("last used", info.last_used.strftime(_TIME)),
        ("durability", info.durability),
        ("executor", info.executor),
        ("precision", info.precision),
        ("writer", f"{info.lease.holder} (lease {info.lease.number})" if info.lease else "anybody"),
        ("step", str(info.step)),
        ("pending", f"{info.contributions} contributions, {len(info.forward_ids)} passes"),
        ("parameters", f"{_options.count(_count(info))} in {len(info.parameters)} arrays"),
        ("optimizer", _optimizer(info) or "none"),
        ("seed", str(info.seed)),
        ("digest", digest),
    ]
    yield from _options.table(rows)
    if checkpoints:
        yield ""
        head = ("CHECKPOINT", "STEP", "SIZE", "CREATED", "DIGEST")
        yield from _options.table([head, *map(_cells, checkpoints)], right=(1, 2))


def _delete(client: Client, options: argparse.Namespace) -> Iterator[str]:
    client.session(options.session).close()
    if options.json:
        yield _options.as_json({"deleted": options.session})


def _fork(client: Client, options: argparse.Namespace) -> Iterator[str]:
    yield _made(client.session(options.session).fork().id, options)


def _move(client: Client, options: argparse.Namespace) -> Iterator[str]:
    client.session(options.session).move(options.to)
    if options.json:
        yield _options.as_json({"session": options.session, "replica": options.to})


def _export(client: Client, options: argparse.Namespace) -> Iterator[str]:
    session = client.session(options.session)
    with _options.usable(options.file):
        session.save(options.file)
    if options.json:
        yield _options.as_json({"session": session.id, "file": options.file})


def _import(client: Client, options: argparse.Namespace) -> Iterator[str]:
    with _options.usable(options.file):
        yield _made(client.import_session(options.file, durability=options.durability).id, options)


def _made(session_id: str, options: argparse.Namespace) -> str:
    return _options.as_json({"session": session_id}) if options.json else session_id


def _document(info: SessionInfo) -> dict[str, Any]:
    return {
        "session": info.id,
        "created": info.created.isoformat(),
        "last_used": info.last_used.isoformat(),
        "durability": info.durability,
        "executor": info.executor,
        "precision": info.precision,
        "writer": info.lease and {"holder": info.lease.holder, "lease": info.lease.number},
        "step": info.step,
        "contributions": info.contributions,
        "passes": len(info.forward_ids),
        "parameter_count": _count(info),
        "optimizer": _optimizer(info),
        "seed": info.seed,
    }


def _optimizer(info: SessionInfo) -> str | None:
    return info.optimizer and info.optimizer.WhichOneof("algorithm")


def _count(info: SessionInfo) -> int:
    return sum(math.prod(parameter.shape) for parameter in info.parameters)


def _cells(each: CheckpointInfo) -> tuple[str, ...]:
    size = _options.scaled(each.nbytes, "B")
    return each.name or "(by the server)", str(each.step), size, each.created.strftime(_TIME), each.digest[:16]
