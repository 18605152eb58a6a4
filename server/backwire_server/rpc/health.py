"""What a server says of its health by grpc.health.v1: whether it is of use to send calls to it."""

import logging
import threading
from collections.abc import Callable

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

LOOK_SECONDS = 0.25
"""How often it is looked whether the data directory answers."""

_LOG = logging.getLogger("backwire.storage")


class Health:
    """SERVING once sessions are recovered, as long as the data directory answers.

    Where that hangs, calls for durable sessions can only wait, so a balancer is to send them elsewhere. It hangs where
    two looks find it silent: after one alone it may be this process that stood still. Nothing here waits for the disk.

    Attributes:
        hangs: Whether the data directory does not answer.
    """

    hangs = False

    def __init__(self, service: str, silence: Callable[[], float] | None, directory: str | None) -> None:
        """Says NOT_SERVING at first. `silence` tells for how many seconds the data directory has not answered."""
        self._services = ("", service)
        self._servicer = health.HealthServicer()
        self._silence = silence
        self._directory = directory
        self._recovered = False
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._tell()

    def add_to(self, server: object) -> None:
        """Has a gRPC server say it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def watch(self) -> None:
        """Looks at the data directory from now on, if there is one."""
        if self._silence is not None:
            threading.Thread(target=self._look, args=(self._silence,), name="backwire-silence", daemon=True).start()

    def recovered(self) -> None:
        """Notes that all sessions are."""
        self._recovered = True
        self._tell()

    def end(self) -> None:
        """Says NOT_SERVING from now on."""
        self._ended.set()
        self._servicer.enter_graceful_shutdown()

    def _tell(self) -> None:
        known = health_pb2.HealthCheckResponse
        with self._mutex:
            status = known.SERVING if self._recovered and not self.hangs else known.NOT_SERVING
            for service in self._services:
                self._servicer.set(service, status)

    def _look(self, silence: Callable[[], float]) -> None:
        silent = 0.0
        while not self._ended.wait(LOOK_SECONDS):
            before, silent = silent, silence()
            if (min(before, silent) > 0) is self.hangs:
                continue
            self.hangs = not self.hangs
            if self.hangs:
                told = "the data directory %s could not be written to for %.1f s; until it can, health says NOT_SERVING"
                _LOG.warning(told, self._directory, silent)
            else:
                _LOG.warning("the data directory %s can be written to again", self._directory)
            self._tell()
