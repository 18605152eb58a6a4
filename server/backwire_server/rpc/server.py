"""Puts the service, its health and its limits on an address."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np

from backwire_server.access.keyring import Keyring
from backwire_server.config_parts import Access, Capacity, Keeping
from backwire_server.machine import Tuning, usable_cores
from backwire_server.parallel.crew import CREW
from backwire_server.rpc.admission import CALLS, LOOKUPS, PIPELINES, STREAMS, Admission
from backwire_server.rpc.call import Reception, let_in
from backwire_server.rpc.health import Health
from backwire_server.rpc.inspecting import Inspection, add_inspection
from backwire_server.rpc.interceptor import CallInterceptor
from backwire_server.rpc.listening import FAREWELL_SECONDS, bind, credentials_of, options
from backwire_server.rpc.methods import SERVICE, UNARY, handlers
from backwire_server.rpc.rates import Rates
from backwire_server.rpc.replicas.neighbours import Neighbours
from backwire_server.rpc.servicer import GradientServicer
from backwire_server.rpc.status import Observer
from backwire_server.sessions.executors import DEVICES, Executor
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import UNLIMITED, Limits, TenantLimits
from backwire_server.sessions.store.store import HERE, SessionStore
from backwire_server.sessions.turns.processors import Processors
from backwire_server.storage.carrier import FileCarrier
from backwire_server.storage.opening import open_vault
from backwire_server.storage.sharing.shared_vault import SharedVault
from backwire_server.storage.vault import FileVault
from backwire_server.telemetry.collecting import CertificateCollector, CrewCollector, DiskCollector, SessionCollector
from backwire_server.telemetry.metrics import Metrics

if TYPE_CHECKING:  # it needs an extra
    from backwire_server.telemetry.tracing import Tracer

IN_MEMORY = Keeping()
OPEN = Access()
NOTHING = Inspection()
PLAIN = Tuning()
POOLS = {CALLS: "call", STREAMS: "stream", PIPELINES: "pipeline", LOOKUPS: "lookup"}
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
        tenants: TenantLimits = UNLIMITED,
        inspection: Inspection = NOTHING,
        tracer: "Tracer | None" = None,
        tuning: Tuning = PLAIN,
        encrypted: str = "",
    ) -> None:
        """Binds `HOST:PORT` or `unix:PATH`; raises OSError when that is not possible.

        `encrypted` is another `HOST:PORT`, for a server with a certificate that listens on a unix socket besides.
        `home` is what its sessions tell of where they are. With a data directory, which the process must have for
        itself, it has the sessions in there that are its own. Calls are traced where there is a tracer.
        """
        keyring = Keyring(Path(access.tokens), tenants) if access.tokens else None
        limits_of = keyring.limits_of if keyring else lambda _: tenants
        self.admission = Admission(capacity, limits_of, lambda: keyring is not None and keyring.crowded)
        DEVICES.count = tuning.jax_devices
        vault = open_vault(keeping, limits, home.owns, home.replica, capacity.most_waiting)
        processors = Processors(capacity.computations)
        CREW.pass_bytes = capacity.max_helper_pass_bytes
        CREW.most = usable_cores() - 1 if capacity.max_helpers is None else capacity.max_helpers
        self._store = SessionStore(
            limits, home, vault, FileCarrier(limits), processors, limits_of, grouped=tuning.group_sessions
        )
        self.metrics = _metrics_of(self._store, vault, access)
        self._health = Health(SERVICE.full_name, None if vault is None else lambda: vault.silence, keeping.data_dir)
        self._pools = {
            quota: ThreadPoolExecutor(getattr(capacity, quota) + SPARE_THREADS, f"backwire-{name}")
            for quota, name in POOLS.items()
        }
        self._others = ThreadPoolExecutor(SPARE_THREADS, "backwire-health")
        rates = Rates(limits_of, capacity.max_calls_per_second)
        identify = keyring.identify if keyring else let_in
        reception = Reception(self.admission, self.metrics, identify, rates, limits, tracer)
        try:
            self._neighbours = Neighbours(vault, self._store, listen, home.replica, keeping, access, capacity)
        except OSError:
            self._store.close()
            raise
        interceptor = CallInterceptor(SERVICE.full_name, reception, self._pools, self._neighbours.forwarder)
        self._server = grpc.server(
            self._others, interceptors=[interceptor], options=[*options(limits, capacity), *inspection.options]
        )
        observer = Observer(self._store, self.admission)
        methods = handlers(
            GradientServicer(self._store, observer, Executor(tuning.executor), np.dtype(tuning.precision))
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, methods),))
        self._health.add_to(self._server)
        self._neighbours.add_to(self._server)
        add_inspection(self._server, inspection, reception.identify)
        try:
            self.address = bind(self._server, listen, credentials_of(access))
            if encrypted:
                bind(self._server, encrypted, credentials_of(access))
        except OSError:
            self._store.close()
            self._neighbours.part()
            raise
        advertised = keeping.advertise or self.address
        self._neighbours.announce(advertised)
        self._server.start()
        self._neighbours.serve({name: interceptor.behaviour(name, methods[name]) for name in UNARY}, advertised)
        self._health.watch()
        self._store.when_recovered(self._health.recovered)

    @property
    def store(self) -> SessionStore:
        """Its sessions."""
        return self._store

    @property
    def recovering(self) -> int:
        """How many sessions are still to be recovered since the start; health says NOT_SERVING until there are none."""
        return self._store.recovering

    @property
    def hangs(self) -> bool:
        """Whether the data directory does; health says NOT_SERVING meanwhile."""
        return self._health.hangs

    @property
    def census(self) -> tuple[int, int]:
        """How many sessions there are, and how many were ever created."""
        return self._store.census

    def stop(self, grace: float) -> bool:
        """Refuses new calls, waits up to `grace` seconds for those in progress, ends; tells whether all came to an end.

        Until the last call has ended, health answers NOT_SERVING, and new calls are told that the server shuts down.
        Durable sessions hibernate in what is left of that time.
        """
        deadline = time.monotonic() + grace
        self._health.end()
        drained = self.admission.drain(grace)
        self._neighbours.drain(deadline - time.monotonic())
        self._server.stop(FAREWELL_SECONDS if drained else 0).wait()
        self._neighbours.part()
        self._store.close(deadline - time.monotonic())
        CREW.close()
        self._neighbours.close()
        for pool in (*self._pools.values(), self._others):
            pool.shutdown(wait=False, cancel_futures=True)
        return drained


def _metrics_of(store: SessionStore, vault: FileVault | SharedVault | None, access: Access) -> Metrics:
    """Returns what is counted of the sessions of a server, its disk and its certificate."""
    found = Metrics()
    found.watch(SessionCollector(store))
    found.watch(CrewCollector(CREW))
    found.watch(CertificateCollector(access.tls_certificate))
    if vault is not None:
        found.watch(DiskCollector(store, vault))
    return found
