"""A worker process: a server of its own, which the front starts and which ends with it.

It reads its assignment from standard input, and writes lines of JSON to standard output: that it serves, or why it
cannot; and from then on how many sessions it keeps, and how many are still to be recovered, whenever that changed.
Standard input stays open: when it ends, so has the front, however that came, and the worker ends at once. SIGTERM ends
it when the calls in progress are done.
"""

import contextlib
import json
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

from backwire_server import lifetime, machine
from backwire_server.config_values import socket_path
from backwire_server.workers.assignment import Assignment

if TYPE_CHECKING:
    from backwire_server.rpc.server import Server

REPORT_SECONDS = 0.1

_LOG = logging.getLogger("backwire.worker")


def main() -> int:
    """Serves until SIGTERM, and returns the exit status: 0 after an orderly end, 1 when it cannot listen."""
    assignment = Assignment.from_json(sys.stdin.readline())
    stop, orphaned = threading.Event(), threading.Event()
    lifetime.end_on_signal(stop)
    lifetime.end_with_input(orphaned)
    threading.Thread(target=_end_with_front, args=(orphaned, assignment.listen), daemon=True).start()
    machine.prepare(assignment.tuning, os.environ)
    from backwire_server.rpc import logs
    from backwire_server.rpc.server import Server
    from backwire_server.workers.routing import home

    logs.configure(assignment.log_level, access_log=assignment.access_log)
    try:
        server = Server(
            assignment.listen,
            assignment.limits,
            assignment.capacity,
            home(assignment.tag, assignment.address, assignment.index, assignment.count),
            assignment.keeping,
        )
    except OSError as error:
        _tell(error=str(error))
        return 1
    _tell(serving=True, recovering=server.recovering)
    _report(server, stop)
    if not server.stop(assignment.grace):
        logging.shutdown()
        os._exit(0)
    return 0


def _report(server: "Server", stop: threading.Event) -> None:
    last: dict[str, int] = {}
    while not stop.wait(REPORT_SECONDS):
        sessions, created = server.census
        report = {"sessions": sessions, "created": created, "recovering": server.recovering}
        if report != last:
            _tell(**report)
            last = report


def _tell(**facts: object) -> None:
    with contextlib.suppress(OSError):  # the front is gone, and soon so is this process
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


def _end_with_front(orphaned: threading.Event, listen: str) -> None:
    orphaned.wait()
    if listen.startswith("unix:"):
        with contextlib.suppress(OSError):
            os.unlink(socket_path(listen))
        with contextlib.suppress(OSError):  # other workers' sockets are there; the last to end removes the directory
            os.rmdir(os.path.dirname(socket_path(listen)))
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
