"""Figures of sessions and their files are those of the moment, and docs/metrics.md tells all that there are."""

import platform
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.access.conftest import Authority
from tests.graphs import dot_graph
from tests.telemetry.test_metrics import facts, samples

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Access, Keeping
from backwire_server.messages.session import session_spec
from backwire_server.parallel.crew import Crew
from backwire_server.rpc.replicas.connections import Connections
from backwire_server.rpc.replicas.peers import Peers
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.errors import SessionQuarantined, StorageFailed
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.store.store import SessionStore
from backwire_server.storage import failpoints
from backwire_server.storage.opening import open_vault
from backwire_server.telemetry.collecting import (
    CertificateCollector,
    CrewCollector,
    DiskCollector,
    SessionCollector,
    Staff,
    StaffCollector,
)
from backwire_server.telemetry.metrics import Metrics

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/metrics.md"
PROCESS = "process_"


class Kept:
    """A store with a data directory, and its figures."""

    def __init__(self, directory: Path, durability: str = "journal", most: int | None = None) -> None:
        limits = Limits()
        vault = open_vault(Keeping(str(directory), durability, most), limits, lambda _: True)
        assert vault is not None
        self.store = SessionStore(limits, vault=vault)
        self.metrics = Metrics()
        self.metrics.watch(SessionCollector(self.store))
        self.metrics.watch(DiskCollector(self.store, vault))

    def session(self, name: str = "") -> Session:
        sgd = pb.CreateSessionRequest(graph=dot_graph(), request_id=name)
        sgd.optimizer.learning_rate = 0.5
        sgd.optimizer.sgd.SetInParent()
        return self.store.get(self.store.create(UNBOUNDED, session_spec(sgd, Limits())).session_id)

    def figure(self, name: str) -> float:
        return samples(self.metrics.exposition())[f"backwire_{name}", ()]


def train(session: Session, times: int = 1) -> None:
    for _ in range(times):
        session.train_step(UNBOUNDED, TrainCall({"x": tensors.decode(tensors.encode([1.0, -2.0, 4.0]))}))


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    kept: list[Kept] = []

    def make(*settings: Any, **named: Any) -> Kept:
        kept.append(Kept(tmp_path, *settings, **named))
        return kept[-1]

    yield make
    failpoints.disarm()
    for each in kept:
        each.store.close()


def test_sessions_are_told_by_tenant_and_by_where_they_are(keep: Callable[..., Kept]) -> None:
    kept = keep()
    first, _ = kept.session(), kept.session()
    assert samples(kept.metrics.exposition())["backwire_sessions", (("tenant", "default"),)] == 2
    assert (kept.figure("sessions_awake"), kept.figure("sessions_hibernated")) == (2, 0)
    assert first.hibernate()
    assert (kept.figure("sessions_awake"), kept.figure("sessions_hibernated")) == (1, 1)
    assert kept.figure("sessions_created_total") == 2
    assert kept.figure("sessions_limit") == Limits().max_sessions
    assert 0 < kept.figure("session_bytes") < kept.figure("session_bytes_limit")
    assert kept.figure("recovering") == kept.figure("sessions_quarantined") == 0


def test_a_session_whose_files_are_damaged_is_told_as_quarantined(keep: Callable[..., Kept], tmp_path: Path) -> None:
    kept = keep()
    session = kept.session()
    assert session.hibernate()
    for checkpoint in (tmp_path / "sessions" / session.session_id).glob("checkpoint-*"):
        checkpoint.write_bytes(b"damage")
    with pytest.raises(SessionQuarantined, match="were written"):
        train(session)
    assert (kept.figure("sessions_quarantined"), kept.figure("sessions_hibernated")) == (1, 1)


def test_what_the_journal_wrote_is_counted_and_what_would_be_replayed_ends_with_a_checkpoint(
    keep: Callable[..., Kept],
) -> None:
    kept = keep()
    session = kept.session()
    empty = kept.figure("journal_replay_bytes")
    train(session, 3)
    assert kept.figure("journal_records_total") == 3
    written = kept.figure("journal_bytes_total")
    assert kept.figure("journal_replay_bytes") == empty + written > empty
    assert kept.figure("journal_segments_total") == 1
    assert kept.figure("checkpoint_seconds_count") == 0
    assert session.hibernate()
    assert kept.figure("checkpoint_seconds_count") == 1
    assert kept.figure("checkpoint_seconds_sum") > 0
    assert kept.figure("checkpoint_bytes_total") > 0
    assert kept.figure("journal_replay_bytes") == 0
    train(session)
    assert kept.figure("journal_segments_total") == 2
    assert kept.figure("journal_replay_bytes") < empty + written


@pytest.mark.parametrize(("durability", "flushed"), [("journal", False), ("fsync", True)])
def test_flushes_are_counted_where_somebody_waits_for_them(
    keep: Callable[..., Kept], durability: str, flushed: bool
) -> None:
    kept = keep(durability)
    session = kept.session()
    before = kept.figure("journal_flush_seconds_count")
    train(session, 2)
    assert kept.figure("journal_flush_seconds_count") == before + 2 * flushed
    assert (kept.figure("journal_flush_seconds_sum") > 0) is flushed


def test_what_the_disk_did_not_do_is_counted(keep: Callable[..., Kept]) -> None:
    kept = keep()
    session = kept.session()
    failpoints.arm("journal.append=EIO@1")
    with pytest.raises(StorageFailed, match="could not be written"):
        train(session)
    assert (kept.figure("journal_failures_total"), kept.figure("checkpoint_failures_total")) == (1, 0)
    train(session)
    failpoints.arm("checkpoint.begun=ENOSPC@1")
    assert not session.hibernate()
    assert (kept.figure("journal_failures_total"), kept.figure("checkpoint_failures_total")) == (1, 1)
    assert kept.figure("checkpoint_seconds_count") == 0


def test_checkpoints_with_a_name_are_counted_and_those_that_fail_in_the_background(keep: Callable[..., Kept]) -> None:
    kept = keep()
    session = kept.session()
    session.save_checkpoint(UNBOUNDED, "good")
    assert kept.figure("checkpoint_seconds_count") == 1
    failpoints.arm("checkpoint.begun=ENOSPC@1")
    with pytest.raises(StorageFailed):
        session.save_checkpoint(UNBOUNDED, "bad")
    assert (kept.figure("checkpoint_seconds_count"), kept.figure("checkpoint_failures_total")) == (1, 1)


def test_bytes_on_disk_are_told_beside_their_limit_alone(keep: Callable[..., Kept], tmp_path: Path) -> None:
    kept = keep()
    kept.session()
    assert "backwire_disk_bytes" not in kept.metrics.exposition().decode()
    kept.store.close()
    limited = keep(most=1 << 20)
    found = sum(path.stat().st_size for path in (tmp_path / "sessions").rglob("*") if path.is_file())
    assert limited.figure("disk_bytes") == found > 0
    assert limited.figure("disk_bytes_limit") == 1 << 20


def test_the_build_is_told() -> None:
    metrics = Metrics()
    [labels] = [dict(labels) for name, labels in samples(metrics.exposition()) if name == "backwire_build_info"]
    assert labels["python"] == platform.python_version()
    assert set(labels) == {"version", "python", "numpy", "grpc"}


def test_when_a_certificate_expires_is_told_while_it_can_be_read(tmp_path: Path) -> None:
    metrics, path = Metrics(), tmp_path / "tls.crt"
    metrics.watch(CertificateCollector(str(path)))
    name = ("backwire_certificate_expiry_seconds", ())
    assert name not in samples(metrics.exposition())
    path.write_bytes(Authority("ours").issue("server", days=3).certificate)
    assert 0 < samples(metrics.exposition())[name] - (time.time() + 3 * 86_400) + 60 < 120
    path.write_bytes(b"no certificate")
    assert name not in samples(metrics.exposition())


def test_every_metric_is_in_the_document_with_its_type_and_labels(keep: Callable[..., Kept], tmp_path: Path) -> None:
    kept = keep(most=1 << 20)
    kept.session()
    certificate = tmp_path / "tls.crt"
    certificate.write_bytes(Authority("ours").issue("server").certificate)
    kept.metrics.watch(CertificateCollector(str(certificate)))
    kept.metrics.watch(StaffCollector(lambda: Staff(1, 2, 3)))
    kept.metrics.watch(CrewCollector(Crew(0, Peers(1, list, b"secret", Connections(Access()), dict))))
    kept.metrics.started("Step")
    kept.metrics.ended(facts(reason="OVERLOADED"))
    found = {}
    for family in text_string_to_metric_families(kept.metrics.exposition().decode()):
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        if not (name.startswith(PROCESS) or name.endswith("_created")):
            found[name] = (family.type, labels)
    row = re.compile(r"\| `(backwire_\w+)` \| (\w+) \|([^|]*)\|")
    told = {
        name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in row.findall(DOCUMENT.read_text())
    }
    assert found == told
