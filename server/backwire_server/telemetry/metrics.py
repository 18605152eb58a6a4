"""What is counted of calls, in Prometheus' terms; beside it is told what collectors collect."""

from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from backwire_server.telemetry.collecting import BuildCollector
from backwire_server.telemetry.facts import CallFacts

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)


class Metrics:
    """The figures of one process, in a registry of their own. May be used by several threads at once.

    Tenants are those of the operator's tokens, and methods those of the contract, so there are not too many series.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter, histogram = self._counter, self._histogram
        self._calls = counter("calls", "Calls, and requests on Pipelines, that ended", "method", "code", "tenant")
        self._received = counter("received_bytes", "Bytes of their requests", "method", "tenant")
        self._sent = counter("sent_bytes", "Bytes of their answers", "method", "tenant")
        self._refusals = counter("errors", "Calls that failed, by the reason they were told", "reason")
        self._seconds = histogram("call_seconds", "How long calls took", "method")
        self._queue = histogram("queue_seconds", "How long calls waited until their session was free")
        self._compute = histogram("compute_seconds", "How long calls had their session, the journal apart", "method")
        self._journal = histogram("journal_seconds", "How long calls waited for the journal")
        self._open = Gauge("backwire_calls_in_progress", "Calls that were begun", ["method"], registry=self._registry)
        self._children = cache(self._resolve)
        self._in_progress = cache(self._open.labels)
        self._refused = cache(self._refusals.labels)
        ProcessCollector(registry=self._registry)
        self.watch(BuildCollector())

    def watch(self, collector: Collector) -> None:
        """Has the figures of a collector told, too."""
        self._registry.register(collector)

    def started(self, method: str) -> None:
        """Counts a call that begins; `ended` must follow."""
        self._in_progress(method).inc()

    def ended(self, facts: CallFacts) -> None:
        """Counts what ended: a call that `started`, or a request on a Pipeline."""
        calls, received, sent, seconds, compute = self._children(facts.method, facts.code, facts.tenant)
        calls.inc()
        received.inc(facts.request_bytes)
        sent.inc(facts.response_bytes)
        seconds.observe(facts.seconds)
        compute.observe(facts.spent.compute)
        self._queue.observe(facts.spent.queue)
        self._journal.observe(facts.spent.journal)
        if facts.reason != "OK":
            self.refused(facts.reason)
        if not facts.streaming:
            self._in_progress(facts.method).dec()

    def refused(self, reason: str) -> None:
        """Counts a call that failed for this reason."""
        self._refused(reason).inc()

    def exposition(self) -> bytes:
        """Returns all figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def _resolve(self, method: str, code: str, tenant: str) -> tuple[Any, ...]:
        return (
            self._calls.labels(method, code, tenant),
            self._received.labels(method, tenant),
            self._sent.labels(method, tenant),
            self._seconds.labels(method),
            self._compute.labels(method),
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"backwire_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"backwire_{name}", text, labels, registry=self._registry, buckets=SECONDS)
