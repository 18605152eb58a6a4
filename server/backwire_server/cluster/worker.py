"""A worker of a cluster: a server in a process of Ray's, which Ray starts on a node, and again when it has ended.

It shares the data directory with the others under its own name. Importing this module imports no numpy, so that the
process can still be prepared for it.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from backwire_server import machine
from backwire_server.cluster.load import Load, SessionLoad
from backwire_server.config import Config
from backwire_server.config_parts import Cluster
from backwire_server.config_values import ConfigError

if TYPE_CHECKING:
    from backwire_server.rpc.server import Server
    from backwire_server.sessions.status import SessionStatus

LOOKED_AT = 64
"""How many sessions, those used last, are told of."""


def settings_of(settings: Config, worker: str, host: str) -> Config:
    """Returns the settings of a worker on a node of this address; raises ConfigError."""
    cluster, limits, capacity = settings.cluster, settings.limits, settings.capacity
    memory = limits.max_total_bytes if cluster.worker_memory is None else cluster.worker_memory
    helpers = cluster.worker_cpus - 1 if capacity.max_helpers is None else capacity.max_helpers
    try:
        return replace(
            settings,
            listen=f"[{host}]:0" if ":" in host else f"{host}:0",
            metrics_listen=None,
            replica=worker,
            workers=1,
            keeping=replace(settings.keeping, shared=True),
            limits=replace(limits, max_total_bytes=min(limits.max_total_bytes, memory)),
            capacity=replace(
                capacity,
                max_helpers=helpers,
                max_concurrent_computations=capacity.max_concurrent_computations or cluster.worker_cpus,
            ),
            cluster=Cluster(),
        )
    except ConfigError as error:
        raise ConfigError(f"a worker of --ray listens on the address of its node, {host}: {error}") from None


class Worker:
    """Serves sessions from when it is made, as an actor of several threads."""

    def __init__(self, settings: Config, name: str) -> None:
        """Listens on a free port of its node's address; raises OSError, ConfigError."""
        import ray

        gpus = settings.cluster.worker_gpus
        settings = settings_of(settings, name, ray.util.get_node_ip_address())
        machine.prepare(settings.tuning, os.environ)
        if settings.tuning.executor == "jax":
            _check_gpus(gpus)
        self._name = name
        self._grace = settings.grace
        self._mutex = threading.Lock()
        with contextlib.ExitStack() as stack:
            self._server = _server(settings, stack)
            self._stack = stack.pop_all()
        self._drained: bool | None = None
        self._draining = threading.Lock()
        self._asked = time.monotonic()
        self._used = 0.0
        self._steps: dict[str, int] = {}

    def load(self) -> Load:
        """Returns what it has to do; `busy` is since the last call."""
        with self._mutex:
            store, now = self._server.store, time.monotonic()
            used, seconds = store.processors.used, max(now - self._asked, 1e-3)
            busy = min(1.0, (used - self._used) / seconds / store.processors.count)
            self._asked, self._used = now, used
            found = store.overview(LOOKED_AT)
            return Load(
                self._name,
                self._server.address,
                busy,
                store.budget.used,
                store.budget.limit,
                found.awake,
                self._sessions(found.sessions, busy),
                takes_calls=not self._draining.locked() and self._drained is None,
                hangs=self._server.hangs,
            )

    def move(self, session_id: str, replica: str) -> str:
        """Has another worker have a session; returns the address of that. Raises as MoveSession is refused."""
        from backwire_server.sessions.scope import UNBOUNDED

        return self._server.store.get(session_id).move(UNBOUNDED, replica)

    def metrics(self) -> str:
        """Returns its figures in Prometheus' text format."""
        return self._server.metrics.exposition().decode()

    def drain(self) -> bool:
        """Ends in good order, after which any worker may have its sessions; tells whether all calls came to an end.

        That is done once, however often it is asked for: who asks again waits for it, too.
        """
        with self._draining:
            if self._drained is None:
                self._drained = self._server.stop(self._grace)
                self._stack.close()
            return self._drained

    def _sessions(self, found: "Iterable[SessionStatus]", busy: float) -> tuple[SessionLoad, ...]:
        """Returns the sessions that may be moved; what the worker was busy with is theirs by steps and bytes."""
        from backwire_server.sessions.info import DURABLE_PREFIX
        from backwire_server.sessions.status import SessionState

        awake = [each for each in found if each.state is SessionState.AWAKE]
        work = {each.session_id: (each.steps - self._steps.get(each.session_id, 0)) * each.nbytes for each in awake}
        self._steps = {each.session_id: each.steps for each in awake}
        whole = max(sum(work.values()), 1)
        return tuple(
            SessionLoad(each.session_id, each.nbytes, busy * work[each.session_id] / whole)
            for each in awake
            if each.session_id.startswith(DURABLE_PREFIX)
        )


def _check_gpus(count: int) -> None:
    """Raises OSError where JAX finds fewer GPUs than Ray has set aside for this process: it would take processors."""
    from backwire_server.xla.sharding import gpus

    found, visible = gpus() if count else 0, os.getenv("CUDA_VISIBLE_DEVICES")
    if found < count:
        raise OSError(
            f"Ray has set {count} GPUs aside for this worker (CUDA_VISIBLE_DEVICES={visible}), and JAX finds {found}; "
            "install JAX for them on the nodes, such as by `pip install 'jax[cuda12]'`, or leave --worker-gpus out"
        )


def _server(settings: Config, stack: contextlib.ExitStack) -> "Server":
    from backwire_server.rpc import logs
    from backwire_server.rpc.server import Server
    from backwire_server.sessions.info import Home
    from backwire_server.storage.lock import DirectoryLock
    from backwire_server.telemetry.opening import tracing

    assert settings.keeping.data_dir is not None
    logs.configure(settings.log_level, access_log=settings.access_log)
    stack.enter_context(DirectoryLock(settings.keeping.data_dir, shared=True))
    return Server(
        settings.listen,
        settings.limits,
        settings.capacity,
        Home(replica=settings.replica or ""),
        settings.keeping,
        settings.access,
        settings.tenants,
        tracer=stack.enter_context(tracing(settings.tracing)),
        tuning=settings.tuning,
    )
