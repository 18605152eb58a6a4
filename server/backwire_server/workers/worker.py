"""A worker process: a server of its own, which the front starts and which ends with it.

It reads its assignment from standard input, and writes lines of JSON to standard output: that it serves, or why it
cannot; and from then on how many sessions it keeps, and how many are still to be recovered, whenever that changed; and
its metrics, when it reads anything further. Standard input stays open: when it ends, so has the front, however
that came, and the worker ends at once. SIGTERM ends it when the calls in progress are done.
"""

import contextlib
import json
import logging
import os
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from backwire_server import lifetime, machine
from backwire_server.config_values import ConfigError, socket_path
from backwire_server.workers.assignment import Assignment

if TYPE_CHECKING:
    from backwire_server.rpc.server import Server
    from backwire_server.telemetry.tracing import Tracer

REPORT_SECONDS = 0.1

_TELLING = threading.Lock()

_LOG = logging.getLogger("backwire.worker")


def main() -> int:
    """Serves until SIGTERM, and returns the exit status: 0 after an orderly end, 1 when it cannot listen."""
    assignment = Assignment.from_json(sys.stdin.readline())
    stop, asked = threading.Event(), SimpleQueue[None]()
    lifetime.end_on_signal(stop)
    threading.Thread(target=_heed_front, args=(asked, assignment.listen), daemon=True).start()
    machine.prepare(assignment.tuning, os.environ)
    from backwire_server.rpc import logs
    from backwire_server.telemetry.opening import tracing

    logs.configure(assignment.log_level, access_log=assignment.access_log)
    try:
        with tracing(assignment.tracing) as tracer:
            drained = _serve(_server(assignment, tracer), assignment.grace, stop, asked)
    except (OSError, ConfigError) as error:
        _tell(error=str(error))
        return 1
    if not drained:
        logging.shutdown()
        os._exit(0)
    return 0


def _server(assignment: Assignment, tracer: "Tracer | None") -> "Server":
    from backwire_server.rpc.server import Server
    from backwire_server.workers.routing import home

    return Server(
        assignment.listen,
        assignment.limits,
        assignment.capacity,
        home(assignment.tag, assignment.address, assignment.index, assignment.count, assignment.replica),
        assignment.keeping,
        assignment.access,
        assignment.tenants,
        tracer=tracer,
        tuning=assignment.tuning,
        encrypted=assignment.encrypted,
    )


def _serve(server: "Server", grace: float, stop: threading.Event, asked: "SimpleQueue[None]") -> bool:
    _tell(serving=True, recovering=server.recovering)
    threading.Thread(target=_tell_metrics, args=(server, asked), daemon=True).start()
    _report(server, stop)
    return server.stop(grace)


def _report(server: "Server", stop: threading.Event) -> None:
    last: dict[str, int] = {}
    while not stop.wait(REPORT_SECONDS):
        sessions, created = server.census
        report = {"sessions": sessions, "created": created, "recovering": server.recovering, "hangs": server.hangs}
        if report != last:
            _tell(**report)
            last = report


def _tell_metrics(server: "Server", asked: "SimpleQueue[None]") -> None:
    while True:
        asked.get()
        _tell(metrics=server.metrics.exposition().decode())


def _tell(**facts: object) -> None:
    line = json.dumps(facts) + "\n"
    with contextlib.suppress(OSError), _TELLING:  # if the front is gone, so is this process soon
        sys.stdout.write(line)
        sys.stdout.flush()


def _heed_front(asked: "SimpleQueue[None]", listen: str) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):  # not sys.stdin, which a thread that waits in it would keep from being closed
            asked.put(None)
    if listen.startswith("unix:"):
        with contextlib.suppress(OSError):
            os.unlink(socket_path(listen))
        with contextlib.suppress(OSError):  # other workers' sockets are there; the last to end removes the directory
            os.rmdir(os.path.dirname(socket_path(listen)))
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
