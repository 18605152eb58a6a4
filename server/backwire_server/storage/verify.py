"""`backwire verify DIR`: replays what a data directory has, and compares the bits."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from backwire_server import machine

if TYPE_CHECKING:
    from backwire_server.storage.verification import Verdict


def main() -> int:
    """Verifies all sessions, or those that are named; prints a line for each, and returns the exit status.

    With `--json` each line is a document, and none at the end counts them.
    """
    options = _parser().parse_args()
    machine.prepare(machine.Tuning(), os.environ)  # as the server does: other kernels would round differently
    from backwire_server.sessions.errors import SessionNotFound
    from backwire_server.sessions.limits import Limits
    from backwire_server.storage.lock import DirectoryLock
    from backwire_server.storage.verification import is_shared, session_ids, verify_session

    directory = Path(options.directory)
    shared = is_shared(directory)
    if not shared and not (directory / "sessions").is_dir():
        sys.stderr.write(f"backwire verify: {directory} is no data directory; give the one of --data-dir\n")
        return 2
    done = bad = 0
    try:
        with DirectoryLock(directory, patience=0.0, shared=shared):
            for name in options.session or session_ids(directory):
                found: Verdict | BaseException
                try:
                    found = verify_session(directory, name, Limits())
                except (Exception, MemoryError) as error:
                    if isinstance(error, SessionNotFound) and not options.session:  # it was deleted meanwhile
                        continue
                    bad += 1
                    found = error
                done += 1
                _tell(_document(name, found) if options.json else _line(name, found))
    except OSError as error:
        sys.stderr.write(f"backwire verify: {error}\n")
        return 2
    if not options.json:
        _tell(f"{done} sessions: {done - bad} in order, {bad} damaged")
    return 1 if bad else 0


def _line(name: str, found: "Verdict | BaseException") -> str:
    if isinstance(found, BaseException):
        return f"{name}  DAMAGED  {found}"
    told = f"step {found.step:,}, {found.mutations:,} mutations replayed, "
    lost = f", {found.loss.records:,} or more records after it lost with the machine's power" if found.loss else ""
    return f"{name}  ok  {told}{found.checkpoints} checkpoints compared, digest {found.digest}{lost}"


def _document(name: str, found: "Verdict | BaseException") -> str:
    facts = {"error": str(found)} if isinstance(found, BaseException) else asdict(found)
    return json.dumps({"session": name, "ok": not isinstance(found, BaseException), **facts})


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="backwire verify",
        description="Replays every session of a data directory from its oldest checkpoint on and compares the digest "
        "with that of each later one. Changes nothing. No server may use the directory meanwhile, but with --shared.",
        epilog="exit codes: 0 all are in order, 1 some are damaged, 2 the directory cannot be verified",
    )
    parser.add_argument("directory", metavar="DIR", help="what the server was given with --data-dir")
    parser.add_argument("session", nargs="*", help="the ids of sessions to verify; all by default")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each session")
    return parser


if __name__ == "__main__":
    sys.exit(main())
