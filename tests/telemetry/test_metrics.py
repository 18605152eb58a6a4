"""Metrics as Prometheus reads them: what is counted, merged over workers, and served."""

import contextlib
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.access.conftest import Authority, Pair, trusting
from tests.waiting import until

from backwire_server.config_parts import Access
from backwire_server.sessions.spent import Spent
from backwire_server.telemetry.endpoint import MOST_CLIENTS, MetricsEndpoint
from backwire_server.telemetry.facts import CallFacts
from backwire_server.telemetry.merging import merged
from backwire_server.telemetry.metrics import Metrics

TLS = Path(__file__).parent.parent / "client/tls"


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def facts(method: str = "Step", reason: str = "OK", *, streaming: bool = False) -> CallFacts:
    spent = Spent()
    spent.queue, spent.compute, spent.journal = 0.25, 0.5, 0.125
    code = "OK" if reason == "OK" else "RESOURCE_EXHAUSTED"
    return CallFacts(method, code, reason, 1.0, spent, 10, 20, "acme", streaming)


def test_calls_are_counted_with_their_bytes_and_times() -> None:
    metrics = Metrics()
    metrics.started("Step")
    metrics.ended(facts())
    metrics.started("Step")
    metrics.ended(facts(reason="OVERLOADED"))
    metrics.started("Step")
    found = samples(metrics.exposition())
    assert found["backwire_calls_total", (("code", "OK"), ("method", "Step"), ("tenant", "acme"))] == 1
    assert found["backwire_errors_total", (("reason", "OVERLOADED"),)] == 1
    assert found["backwire_received_bytes_total", (("method", "Step"), ("tenant", "acme"))] == 20
    assert found["backwire_sent_bytes_total", (("method", "Step"), ("tenant", "acme"))] == 40
    assert found["backwire_call_seconds_sum", (("method", "Step"),)] == 2.0
    assert found["backwire_compute_seconds_sum", (("method", "Step"),)] == 1.0
    assert found["backwire_queue_seconds_sum", ()] == 0.5
    assert found["backwire_journal_seconds_sum", ()] == 0.25
    assert found["backwire_calls_in_progress", (("method", "Step"),)] == 1


def test_a_request_on_a_pipeline_is_no_call_in_progress() -> None:
    metrics = Metrics()
    metrics.started("Pipeline")
    metrics.ended(facts("Pipeline/step", streaming=True))
    found = samples(metrics.exposition())
    assert found["backwire_calls_in_progress", (("method", "Pipeline"),)] == 1
    assert found["backwire_call_seconds_count", (("method", "Pipeline/step"),)] == 1


def test_metrics_of_workers_differ_by_a_label_alone() -> None:
    one, two = Metrics(), Metrics()
    for metrics in (one, two, two):
        metrics.started("Step")
        metrics.ended(facts())
    found = samples(merged({"0": one.exposition().decode(), "1": two.exposition().decode()}))
    name, labels = "backwire_calls_total", (("code", "OK"), ("method", "Step"), ("tenant", "acme"))
    assert found[name, (*labels, ("worker", "0"))] == 1
    assert found[name, (*labels, ("worker", "1"))] == 2
    bucket = ("backwire_call_seconds_bucket", (("le", "+Inf"), ("method", "Step"), ("worker", "1")))
    assert found[bucket] == 2


@pytest.fixture
def endpoint() -> Iterator[MetricsEndpoint]:
    made = MetricsEndpoint("127.0.0.1:0", lambda: b"up 1\n", Access())
    yield made
    made.close()


def test_metrics_are_fetched_and_nothing_else(endpoint: MetricsEndpoint) -> None:
    with urllib.request.urlopen(f"http://{endpoint.address}/metrics", timeout=10) as answer:
        assert answer.read() == b"up 1\n"
        assert answer.headers["Content-Type"].startswith("text/plain")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{endpoint.address}/", timeout=10)


@pytest.mark.usefixtures("endpoint")
def test_the_endpoint_sleeps_while_nobody_comes() -> None:
    (thread,) = (each for each in threading.enumerate() if each.name == "backwire-metrics")
    status = Path(f"/proc/self/task/{thread.native_id}/status")

    def slept_on() -> bool:
        before = waits(status)
        time.sleep(0.2)
        return waits(status) == before

    assert any(slept_on() for _ in range(10)), "it wakes again and again"


def waits(status: Path) -> str:
    """How often a thread has begun to wait, by its status in /proc."""
    return next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))


def test_clients_that_send_nothing_do_not_take_more_than_their_places(endpoint: MetricsEndpoint) -> None:
    host, _, port = endpoint.address.rpartition(":")
    idle = [socket.create_connection((host, int(port)), timeout=10) for _ in range(MOST_CLIENTS)]
    with socket.create_connection((host, int(port)), timeout=10) as late:
        assert late.recv(1) == b"", "one too many is sent away at once"
    for each in idle:
        each.close()


def goes_on(client: socket.socket) -> bool:
    """Sends a byte, and tells whether the connection has not been ended, which is closed otherwise."""
    client.settimeout(0.01)
    with contextlib.suppress(OSError):
        try:
            client.sendall(b"G")
            client.recv(1)
        except TimeoutError:
            return True
    client.close()
    return False


def test_a_client_that_sends_byte_after_byte_is_cut_off_and_its_place_comes_free() -> None:
    endpoint = MetricsEndpoint("127.0.0.1:0", lambda: b"up 1\n", Access(), patience=0.2)
    host, _, port = endpoint.address.rpartition(":")
    for _ in range(2):  # all places are taken, twice
        slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(MOST_CLIENTS)]
        while slow:
            slow = [each for each in slow if goes_on(each)]
    assert until(lambda: answered(endpoint)) == b"up 1\n"
    endpoint.close()


def answered(endpoint: MetricsEndpoint) -> bytes | None:
    """What a client gets, and None while there is no place for it: one comes free some time after its client went."""
    try:
        with urllib.request.urlopen(f"http://{endpoint.address}/metrics", timeout=10) as answer:
            return bytes(answer.read())
    except (OSError, HTTPException):
        return None


def replace(pair: Pair, certificate: Path, key: Path) -> None:
    key.write_bytes(pair.key)
    certificate.write_bytes(pair.certificate)


def fetched(endpoint: MetricsEndpoint, trusted: Authority) -> bytes:
    context = trusting(trusted.certificate)
    context.check_hostname = False
    with urllib.request.urlopen(f"https://{endpoint.address}/metrics", timeout=10, context=context) as answer:
        found: bytes = answer.read()
        return found


def test_a_certificate_that_changes_is_taken_up_and_a_wrong_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    first, second = Authority("first"), Authority("second")
    replace(first.issue("metrics"), certificate, key)
    access = Access(tls_certificate=str(certificate), tls_key=str(key))
    endpoint = MetricsEndpoint("127.0.0.1:0", lambda: b"up 1\n", access)
    assert fetched(endpoint, first) == b"up 1\n"
    certificate.write_text("no certificate")
    assert fetched(endpoint, first) == b"up 1\n"
    assert "stays as it was" in caplog.text
    replace(second.issue("metrics"), certificate, key)
    assert fetched(endpoint, second) == b"up 1\n"
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        fetched(endpoint, first)
    endpoint.close()


def test_metrics_are_encrypted_where_the_server_is() -> None:
    access = Access(tls_certificate=str(TLS / "server.pem"), tls_key=str(TLS / "server.key"))
    endpoint = MetricsEndpoint("127.0.0.1:0", lambda: b"up 1\n", access)
    context = ssl.create_default_context(cafile=str(TLS / "server.pem"))
    context.check_hostname = False
    with urllib.request.urlopen(f"https://{endpoint.address}/metrics", timeout=10, context=context) as answer:
        assert answer.read() == b"up 1\n"
    endpoint.close()
