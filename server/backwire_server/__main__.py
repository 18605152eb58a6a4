"""Starts a server: `python -m backwire_server`; `--help` tells how."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from backwire_server import config_reading, lifetime, machine
from backwire_server.config import Config
from backwire_server.config_values import ConfigError

_LOG = logging.getLogger("backwire.server")


def main() -> int:
    """Serves until a signal, and returns the exit status: 0 after an orderly end, 1 when it cannot listen."""
    settings = config_reading.parse(sys.argv[1:], os.environ)
    stop = threading.Event()
    lifetime.end_on_signal(stop)
    machine.prepare(settings.tuning, os.environ)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its notes on every connection that closes are no JSON
    from backwire_server.rpc import logs

    logs.configure(settings.log_level, access_log=settings.access_log)
    if settings.exit_with_parent:
        lifetime.end_with_input(stop)
    try:
        with _data_directory(settings) as descriptor:
            drained = _serve(settings, stop, descriptor)
    except (OSError, ConfigError) as error:
        sys.stderr.write(f"backwire: {error}\n")
        return 1
    _LOG.info("ended" if drained else "ended before all calls had")
    if not drained:  # their threads may compute for long, and the interpreter would wait for them
        logging.shutdown()
        os._exit(0)
    return 0


@contextlib.contextmanager
def _data_directory(settings: Config) -> Iterator[int | None]:
    """Has the data directory, if there is one: alone, or with those that share it; raises OSError when it cannot."""
    if settings.keeping.data_dir is None or settings.cluster.ray is not None:  # its workers have it
        yield None
        return
    from backwire_server.storage.lock import DirectoryLock
    from backwire_server.storage.sharing import namesake

    keeping = settings.keeping
    with DirectoryLock(settings.keeping.data_dir, shared=keeping.shared) as lock:
        if keeping.shared and settings.replica is not None:
            namesake.outlast(Path(settings.keeping.data_dir), settings.replica, keeping.lease)
        yield lock.descriptor


def _serve(settings: Config, stop: threading.Event, descriptor: int | None) -> bool:
    """Serves until `stop` is set, from this process or from several; returns whether all calls came to their end.

    Processes inherit the descriptor, since the data directory is in use while any of them lives.
    """
    if settings.cluster.ray is not None:
        from backwire_server.cluster.serve import serve as serve_cluster

        return serve_cluster(settings, stop, _announce)
    if settings.worker_count > 1:
        from backwire_server.workers.serve import serve

        return serve(settings, stop, _announce, descriptor)
    from backwire_server.rpc.inspecting import Inspection
    from backwire_server.rpc.server import Server
    from backwire_server.sessions.info import Home
    from backwire_server.telemetry.endpoint import serving
    from backwire_server.telemetry.opening import tracing

    with tracing(settings.tracing) as tracer:
        server = Server(
            settings.listen,
            settings.limits,
            settings.capacity,
            Home(replica=settings.replica or ""),
            settings.keeping,
            settings.access,
            settings.tenants,
            Inspection(settings.reflection, settings.channelz),
            tracer,
            settings.tuning,
        )
        with serving(settings, server.metrics.exposition):
            _announce(server.address)
            stop.wait()
            _LOG.info("shutting down")
            return server.stop(settings.grace)


def _announce(address: str) -> None:
    _LOG.info("listening on %s", address)
    with contextlib.suppress(OSError):  # nobody may be reading
        sys.stdout.write(f"backwire listening on {address}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
