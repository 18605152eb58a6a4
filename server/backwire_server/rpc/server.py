"""Puts the service, its health and its limits on an address."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from backwire_server.access.keyring import Keyring
from backwire_server.config import Access, Capacity, Keeping
from backwire_server.rpc.admission import CALLS, PIPELINES, STREAMS, Admission
from backwire_server.rpc.call import Reception, let_in
from backwire_server.rpc.interceptor import CallInterceptor
from backwire_server.rpc.listening import bind, credentials_of, options
from backwire_server.rpc.methods import SERVICE, handlers
from backwire_server.rpc.servicer import GradientServicer
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.store import HERE, SessionStore
from backwire_server.storage.carrier import FileCarrier
from backwire_server.storage.opening import open_vault
from backwire_server.telemetry.metrics import Metrics, Sources

IN_MEMORY = Keeping()
OPEN = Access()
SPARE_THREADS = 8  # for refusals beside the calls that are admitted, and for health


class Server:
    """A server that has begun to serve, until `stop`.

    Attributes:
        address: What clients connect to; with the port that was found when 0 was asked for.
        metrics: What is counted of its calls and sessions.
    """

    def __init__(
        self,
        listen: str,
        limits: Limits,
        capacity: Capacity,
        home: Home = HERE,
        keeping: Keeping = IN_MEMORY,
        access: Access = OPEN,
    ) -> None:
        """Binds `HOST:PORT` or `unix:PATH`; raises OSError when that is not possible.

        `home` is what its sessions tell of where they are. With a data directory, which the process must have for
        itself, it has the sessions in there that are its own.
        """
        self.admission = Admission(capacity)
        self._store = SessionStore(limits, home, open_vault(keeping, limits, home.owns), FileCarrier(limits))
        self.metrics = Metrics()
        self.metrics.watch(_sources(self._store))
        self._health = health.HealthServicer()
        self._pools = {
            CALLS: ThreadPoolExecutor(capacity.max_concurrent_calls + SPARE_THREADS, "backwire-call"),
            STREAMS: ThreadPoolExecutor(capacity.max_concurrent_streams + SPARE_THREADS, "backwire-stream"),
            PIPELINES: ThreadPoolExecutor(capacity.max_concurrent_pipelines + SPARE_THREADS, "backwire-pipeline"),
        }
        self._others = ThreadPoolExecutor(SPARE_THREADS, "backwire-health")
        identify = Keyring(Path(access.tokens)).identify if access.tokens else let_in
        reception = Reception(self.admission, self.metrics, identify)
        interceptor = CallInterceptor(SERVICE.full_name, reception, self._pools)
        self._server = grpc.server(self._others, interceptors=[interceptor], options=options(limits))
        methods = handlers(GradientServicer(self._store))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.address = bind(self._server, listen, credentials_of(access))
        except OSError:
            self._store.close()
            raise
        self._server.start()
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._store.when_recovered(lambda: self._set_health(health_pb2.HealthCheckResponse.SERVING))

    @property
    def recovering(self) -> int:
        """How many sessions are still to be recovered since the start; health says NOT_SERVING until there are none."""
        return self._store.recovering

    @property
    def census(self) -> tuple[int, int]:
        """How many sessions there are, and how many were ever created."""
        return self._store.census

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", SERVICE.full_name):
            self._health.set(service, status)

    def stop(self, grace: float) -> bool:
        """Refuses new calls, waits up to `grace` seconds for those in progress, ends; tells whether all came to an end.

        Until the last call has ended, health answers NOT_SERVING, and new calls are told that the server shuts down.
        Durable sessions hibernate in what is left of that time.
        """
        deadline = time.monotonic() + grace
        self._health.enter_graceful_shutdown()
        drained = self.admission.drain(grace)
        self._server.stop(None if drained else 0).wait()
        self._store.close(deadline - time.monotonic())
        for pool in (*self._pools.values(), self._others):
            pool.shutdown(wait=False, cancel_futures=True)
        return drained


def _sources(store: SessionStore) -> Sources:
    return Sources(
        sessions=lambda: store.tenants,
        recovering=lambda: store.recovering,
        used_bytes=lambda: store.budget.used,
        most_bytes=store.budget.limit,
    )
