"""Starts a server: `python -m backwire_server`; `--help` tells how."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import MutableMapping

from backwire_server import config

SIGNALS = (signal.SIGTERM, signal.SIGINT)
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")

_LOG = logging.getLogger("backwire.server")


def limit_compute_threads(environment: MutableMapping[str, str]) -> None:
    """Gives numerical libraries one thread each, unless the user said otherwise; to be called before numpy is imported.

    Calls run on threads already: more under each of them would make all of them slower.
    """
    for variable in THREAD_VARIABLES:
        environment.setdefault(variable, "1")


def main() -> int:
    """Serves until a signal, and returns the exit status: 0 after an orderly end, 1 when it cannot listen."""
    settings = config.parse(sys.argv[1:], os.environ)
    stop = threading.Event()
    _end_on_signal(stop)
    limit_compute_threads(os.environ)
    from backwire_server.rpc import logs
    from backwire_server.rpc.server import Server

    logs.configure(settings.log_level, access_log=settings.access_log)
    if settings.exit_with_parent:
        threading.Thread(target=_end_with_input, args=(stop,), name="backwire-parent", daemon=True).start()
    try:
        server = Server(settings.listen, settings.limits, settings.capacity)
    except OSError as error:
        sys.stderr.write(f"backwire: {error}\n")
        return 1
    _announce(server.address)
    stop.wait()
    _LOG.info("shutting down")
    drained = server.stop(settings.grace)
    _LOG.info("ended" if drained else "ended before all calls had")
    if not drained:  # their threads may compute for long, and the interpreter would wait for them
        logging.shutdown()
        os._exit(0)
    return 0


def _announce(address: str) -> None:
    _LOG.info("listening on %s", address)
    with contextlib.suppress(OSError):  # nobody may be reading
        sys.stdout.write(f"backwire listening on {address}\n")
        sys.stdout.flush()


def _end_on_signal(stop: threading.Event) -> None:
    """Sets the event at the first SIGTERM or SIGINT; a second one ends the process at once.

    To be called before any other thread is started: all of them inherit that these signals are blocked, and one thread
    waits for them. A handler would not do: the system may give a signal to any thread, and Python would not run the
    handler before the main thread, asleep until `stop` is set, woke up for another reason.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_await_signals, args=(stop,), name="backwire-signals", daemon=True).start()


def _await_signals(stop: threading.Event) -> None:
    signal.sigwait(SIGNALS)
    stop.set()
    os._exit(128 + signal.sigwait(SIGNALS))


def _end_with_input(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
