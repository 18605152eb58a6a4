"""Figures that are read when they are asked for: of sessions, their files, workers, and what runs."""

import contextlib
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from backwire_server.access.validity import Validity
from backwire_server.config import version
from backwire_server.parallel.crew import Crew
from backwire_server.sessions.store.store import SessionStore
from backwire_server.storage.sharing.shared_vault import SharedVault
from backwire_server.storage.vault import FileVault

_TALLIED = {
    "journal_records": ("records", "Mutations that were written to journals"),
    "journal_bytes": ("record_bytes", "Bytes of mutations that were written to journals"),
    "journal_segments": ("segments", "Segments of journals that were begun"),
    "journal_failures": ("journal_failures", "Writes and flushes of journals that failed"),
    "power_losses": ("power_losses", "Sessions that a loss of power set back, or took"),
    "checkpoint_bytes": ("checkpoint_bytes", "Bytes of checkpoints that were written"),
    "checkpoint_failures": ("checkpoint_failures", "Checkpoints that could not be written"),
}
"""The counters of a Tally, each with its attribute and what it means."""


class BuildCollector(Collector):
    """Tells the versions that run, which do not change."""

    def __init__(self) -> None:
        labels = {
            "version": version(),
            "python": platform.python_version(),
            "numpy": metadata.version("numpy"),
            "grpc": metadata.version("grpcio"),
        }
        self._told = GaugeMetricFamily("backwire_build_info", "Always 1, for its labels", labels=list(labels))
        self._told.add_metric(list(labels.values()), 1)

    def collect(self) -> Iterable[Metric]:
        """Returns the one figure."""
        return [self._told]


class SessionCollector(Collector):
    """Tells of the sessions of a store."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of this moment."""
        store = self._store
        sessions = GaugeMetricFamily("backwire_sessions", "Sessions that there are", labels=["tenant"])
        for tenant, count in store.tenants.items():
            sessions.add_metric([tenant], count)
        yield sessions
        yield _counter("sessions_created", "Sessions that came to be, or were found at the start", store.census[1])
        where = store.whereabouts
        yield _gauge("sessions_limit", "Sessions that there may be at a time", store.limits.max_sessions)
        yield _gauge("sessions_awake", "Sessions in memory", where.awake)
        yield _gauge("sessions_hibernated", "Sessions on disk alone", where.hibernated)
        yield _gauge("sessions_quarantined", "Sessions whose files were found damaged", where.quarantined)
        yield _gauge("recovering", "Sessions that are still to be recovered since the start", store.recovering)
        yield _gauge("session_bytes", "Bytes that sessions hold in memory", store.budget.used)
        yield _gauge("session_bytes_limit", "Bytes that sessions may hold in memory", store.budget.limit)


class CrewCollector(Collector):
    """Tells where parts of batches are computed."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of this moment."""
        crew = self._crew
        parts = CounterMetricFamily("backwire_parts", "Parts of batches that were computed", labels=["by"])
        for by, count in (("session", crew.kept), ("helper", crew.helped), ("peer", crew.sent)):
            parts.add_metric([by], count)
        yield parts
        yield _gauge("helper_kept_bytes", "Bytes that helpers keep of passes for their Backward", crew.kept_bytes)
        if crew.elsewhere is not None:
            sent, received = crew.elsewhere.traffic
            yield _counter("peer_parts", "Parts of batches that helpers have computed for other servers", crew.lent)
            yield _counter("peer_sent_bytes", "Bytes that were sent to other servers for parts", sent)
            yield _counter("peer_received_bytes", "Bytes that other servers sent of parts", received)


class DiskCollector(Collector):
    """Tells of the journals and checkpoints of a store's sessions."""

    def __init__(self, store: SessionStore, vault: FileVault | SharedVault) -> None:
        self._store = store
        self._vault = vault

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of this moment."""
        usage, tally = self._vault.usage, self._vault.usage.tally
        for name, (attribute, text) in _TALLIED.items():
            yield _counter(name, text, getattr(tally, attribute))
        yield SummaryMetricFamily(
            "backwire_journal_flush_seconds", "Flushes of journals to the disk", tally.flushes, tally.flush_seconds
        )
        yield SummaryMetricFamily(
            "backwire_checkpoint_seconds", "Checkpoints written", tally.checkpoints, tally.checkpoint_seconds
        )
        silence = self._vault.silence
        yield _gauge("disk_silent_seconds", "Seconds for which the data directory has not answered", silence)
        if not silence:  # else to look at files may take as long
            replay = self._store.whereabouts.replay_bytes
            yield _gauge("journal_replay_bytes", "Bytes of journal after the checkpoints of sessions in memory", replay)
        if usage.most is not None:
            yield _gauge("disk_bytes", "Bytes of the files of all sessions", usage.total)
            yield _gauge("disk_bytes_limit", "Bytes that the files of all sessions may have", usage.most)


@dataclass(frozen=True, slots=True)
class Staff:
    """The workers of a server: how many serve, how many should, and how many had to be replaced."""

    serving: int
    wanted: int
    restarts: int


class StaffCollector(Collector):
    """Tells of the workers of a server."""

    def __init__(self, staff: Callable[[], Staff]) -> None:
        """Asks `staff` whenever it is to tell, in any thread."""
        self._staff = staff

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of this moment."""
        staff = self._staff()
        yield _gauge("workers", "Workers that serve", staff.serving)
        yield _gauge("workers_wanted", "Workers that should serve", staff.wanted)
        yield _counter("worker_restarts", "Workers that ended, and are replaced", staff.restarts)


class CertificateCollector(Collector):
    """Tells when the certificate of a server expires, if it has one."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def collect(self) -> Iterator[Metric]:
        """Yields the figure of what the file has now; nothing while it cannot be read."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            validity = Validity.of(Path(self._path).read_bytes())
            if validity is not None:
                text = "When the certificate expires, in seconds since 1970"
                yield _gauge("certificate_expiry_seconds", text, validity.end.timestamp())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"backwire_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"backwire_{name}", text, value)
