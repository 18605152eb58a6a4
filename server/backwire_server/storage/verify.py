"""`backwire verify DIR`: replays what a data directory has, and compares the bits."""

import argparse
import os
import sys
from pathlib import Path

from backwire_server import machine


def main() -> int:
    """Verifies all sessions, or those that are named; prints a line for each, and returns the exit status."""
    options = _parser().parse_args()
    machine.prepare(machine.Tuning(), os.environ)  # as the server does: other kernels would round differently
    from backwire_server.sessions.limits import Limits
    from backwire_server.storage.lock import DirectoryLock
    from backwire_server.storage.verification import session_ids, verify_session

    directory = Path(options.directory)
    if not (directory / "sessions").is_dir():
        sys.stderr.write(f"backwire verify: {directory} is no data directory; give the one of --data-dir\n")
        return 2
    bad = 0
    try:
        with DirectoryLock(directory, patience=0.0):
            names = options.session or session_ids(directory)
            for name in names:
                try:
                    found = verify_session(directory, name, Limits())
                except (Exception, MemoryError) as error:
                    bad += 1
                    _tell(f"{name}  DAMAGED  {error}")
                else:
                    told = f"step {found.step:,}, {found.mutations:,} mutations replayed, "
                    _tell(f"{name}  ok  {told}{found.checkpoints} checkpoints compared, digest {found.digest}")
    except OSError as error:
        sys.stderr.write(f"backwire verify: {error}\n")
        return 2
    _tell(f"{len(names)} sessions: {len(names) - bad} in order, {bad} damaged")
    return 1 if bad else 0


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="backwire verify",
        description="Replays every session of a data directory from its oldest checkpoint on and compares the digest "
        "with that of each later one. Changes nothing. No server may use the directory meanwhile.",
        epilog="exit codes: 0 all are in order, 1 some are damaged, 2 the directory cannot be verified",
    )
    parser.add_argument("directory", metavar="DIR", help="what the server was given with --data-dir")
    parser.add_argument("session", nargs="*", help="the ids of sessions to verify; all by default")
    return parser


if __name__ == "__main__":
    sys.exit(main())
