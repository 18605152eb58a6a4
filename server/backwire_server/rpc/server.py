"""Puts the service, its health and its limits on an address."""

import contextlib
import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from backwire_api.v1 import gradient_service_pb2, gradient_service_pb2_grpc
from backwire_server.config import Capacity, socket_path
from backwire_server.rpc.admission import Admission
from backwire_server.rpc.interceptor import CallInterceptor
from backwire_server.rpc.servicer import GradientServicer
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.store import SessionStore

SERVICE = gradient_service_pb2.DESCRIPTOR.services_by_name["GradientService"].full_name
SPARE_THREADS = 8  # for refusals beside the calls that are admitted, and for health


class Server:
    """A server that has begun to serve, until `stop`.

    Attributes:
        address: What clients connect to; with the port that was found when 0 was asked for.
    """

    def __init__(self, listen: str, limits: Limits, capacity: Capacity) -> None:
        """Binds `HOST:PORT` or `unix:PATH`, without encryption; raises OSError when that is not possible."""
        self.admission = Admission(capacity)
        self._store = SessionStore(limits)
        self._health = health.HealthServicer()
        self._calls = ThreadPoolExecutor(capacity.max_concurrent_calls + SPARE_THREADS, "backwire-call")
        self._streams = ThreadPoolExecutor(capacity.max_concurrent_streams + SPARE_THREADS, "backwire-stream")
        self._others = ThreadPoolExecutor(SPARE_THREADS, "backwire-health")
        interceptor = CallInterceptor(SERVICE, self.admission, self._calls, self._streams)
        self._server = grpc.server(self._others, interceptors=[interceptor], options=_options(limits))
        gradient_service_pb2_grpc.add_GradientServiceServicer_to_server(GradientServicer(self._store), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.address = _bind(self._server, listen)
        except OSError:
            self._store.close()
            raise
        self._server.start()
        for service in ("", SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace: float) -> bool:
        """Refuses new calls, waits up to `grace` seconds for those in progress, ends; tells whether all came to an end.

        Until the last call has ended, health answers NOT_SERVING, and new calls are told that the server shuts down.
        """
        self._health.enter_graceful_shutdown()
        drained = self.admission.drain(grace)
        self._server.stop(None if drained else 0).wait()
        self._store.close()
        for pool in (self._calls, self._streams, self._others):
            pool.shutdown(wait=False, cancel_futures=True)
        return drained


def _bind(server: grpc.Server, listen: str) -> str:
    local = listen.startswith("unix:")
    if local:
        _check_free(socket_path(listen))
    mask = os.umask(0o177)  # only this user may open a socket in the file system
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {listen}: {error}; choose another address") from None
    finally:
        os.umask(mask)
    return listen if local else f"{listen.rpartition(':')[0]}:{port}"


def _check_free(path: str) -> None:
    """Raises OSError when the path is taken, other than by the socket of a server that has ended."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(f"cannot listen on unix:{path}: it is a file; choose another path")
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(ConnectionRefusedError):
            probe.connect(path)
            raise OSError(f"cannot listen on unix:{path}: a server listens there; choose another path")


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # what is too large was refused before it changed anything
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share its clients
        ("grpc.keepalive_time_ms", 60_000),  # a peer that vanished without a word is noticed
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
