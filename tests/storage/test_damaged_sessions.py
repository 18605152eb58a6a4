"""A session whose files are damaged is refused alone, and one that is being recovered only for that time."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from tests.storage.durable import SECONDS, TOUR, Disk, create, damage, do, key_of, killed, standing, train
from tests.waiting import until

from backwire_server.rpc.errors import status_of
from backwire_server.sessions import errors
from backwire_server.sessions.keeping.durable import Mutation, Recovery
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.storage.session_files import FileSession


def one(disk: Disk, session: Session, pattern: str) -> Path:
    [path] = (disk.directory / "sessions" / session.session_id).glob(pattern)
    return path


def _middle(path: Path) -> None:
    damage(path, path.stat().st_size // 2)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


DAMAGE: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "the middle of the journal": ("journal-*", _middle),
    "no journal": ("journal-*", Path.unlink),
    "the definition": ("session.binpb", _middle),
    "no definition": ("session.binpb", Path.unlink),
    "the manifest": ("manifest.json", _middle),
    "no manifest": ("manifest.json", Path.unlink),
}


def refused_for_good(disk: Disk, session: Session) -> None:
    """Every call on the session is, and lists leave it out."""
    calls: list[Callable[[], object]] = [
        session.info,
        lambda: session.digest(UNBOUNDED),
        lambda: train(1)(session, None),
        lambda: session.attach(UNBOUNDED, "me", 1.0, True),
        lambda: session.restore_checkpoint(UNBOUNDED, "", 0),
        lambda: disk.store.fork(UNBOUNDED, session.session_id),
    ]
    for call in calls:
        with pytest.raises(errors.SessionQuarantined, match="backwire verify") as caught:
            call()
        assert status_of(caught.value)[0].code == grpc.StatusCode.DATA_LOSS.value[0]
    assert session.session_id not in [info.session_id for info in disk.store.list().sessions]


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_session_is_quarantined_alone(disk: Disk, what: str) -> None:
    disk.open()
    damaged, healthy, undisturbed = create(disk.store), create(disk.store), disk.undisturbed()
    for session in (damaged, healthy, undisturbed):
        do(session, *TOUR)
    pattern, hurt = DAMAGE[what]
    path = one(disk, damaged, pattern)
    hurt(path)
    found, healthy = killed(disk, damaged), killed(disk, healthy)
    refused_for_good(disk, found)
    assert [info.session_id for info in disk.store.list().sessions] == [healthy.session_id]
    assert standing(healthy) == standing(undisturbed)
    do(healthy, "train")
    disk.store.delete(UNBOUNDED, found.session_id, key_of("delete"))
    with pytest.raises(errors.SessionNotFound):
        killed(disk, damaged)
    assert not path.parent.exists()
    assert [info.session_id for info in disk.store.list().sessions] == [healthy.session_id]


def test_a_session_whose_checkpoint_turns_out_to_be_damaged_is_quarantined_from_then_on(disk: Disk) -> None:
    session = create(disk.open())
    do(session, "train")
    assert session.hibernate()
    path = one(disk, session, "checkpoint-*")
    whole = path.read_bytes()
    damage(path, path.stat().st_size - 1)
    found = killed(disk, session)
    assert found.info().step == 1, "its manifest tells"
    with pytest.raises(errors.SessionQuarantined, match="checkpoint-"):
        found.digest(UNBOUNDED)
    refused_for_good(disk, found)
    assert disk.store.budget.used == 0
    path.write_bytes(whole)
    do(killed(disk, session), "train again")


def test_bits_that_a_replay_does_not_lead_to_are_told(disk: Disk) -> None:
    session = create(disk.open())
    do(session, "train")
    digest = session.save_checkpoint(UNBOUNDED, "best").digest
    do(session, "train again")
    before = standing(session)
    with disk.manifest(session) as manifest:
        manifest["checkpoints"][0]["digest"] = "0" * 64
    found = killed(disk, session)
    with pytest.raises(errors.SessionQuarantined, match="after mutation 1 the state is not what it was"):
        found.digest(UNBOUNDED)
    with disk.manifest(session) as manifest:
        manifest["checkpoints"][0]["digest"] = digest
    assert standing(killed(disk, session)) == before


class TestWhileASessionIsRecovered:
    @pytest.fixture
    def gate(self, monkeypatch: pytest.MonkeyPatch) -> Iterator["Gate"]:
        made = Gate(FileSession.recover)
        monkeypatch.setattr(FileSession, "recover", lambda files: made.recover(files))
        yield made
        made.open.set()

    @pytest.fixture
    def dirty(self, disk: Disk) -> Session:
        """A session with three mutations to do again; another has none."""
        disk.open()
        idle, session = create(disk.store), create(disk.store)
        assert idle.hibernate()
        do(session, "train", "train again", "forward p")
        return session

    def test_calls_and_lists_say_how_far_it_is_and_to_call_again(
        self, disk: Disk, dirty: Session, gate: "Gate"
    ) -> None:
        before = standing(dirty)
        store, told = disk.begin(), threading.Event()
        store.when_recovered(told.set)
        assert gate.reached.wait(SECONDS)
        found = store.get(dirty.session_id)
        for call in (found.info, lambda: found.digest(UNBOUNDED), lambda: train(1)(found, None), store.list):
            with pytest.raises(errors.Recovering, match="2 of 3 mutations are done again; call again") as caught:
                call()
            assert caught.value.retry_after
            assert status_of(caught.value)[0].code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert (store.recovering, told.is_set()) == (1, False)
        gate.open.set()
        assert told.wait(SECONDS)
        assert store.recovering == 0
        assert standing(found) == before
        assert len(store.list().sessions) == 2

    def test_others_can_be_used(self, disk: Disk, dirty: Session, gate: "Gate") -> None:
        other = next(info.session_id for info in disk.store.list().sessions if info.session_id != dirty.session_id)
        store = disk.begin()
        assert gate.reached.wait(SECONDS)
        assert store.get(other).info().step == 0
        train(1)(store.get(other), None)
        assert store.recovering == 1

    def test_it_can_be_deleted_after_that(self, disk: Disk, dirty: Session, gate: "Gate") -> None:
        store = disk.begin()
        assert gate.reached.wait(SECONDS)
        deleting = threading.Thread(target=store.delete, args=(UNBOUNDED, dirty.session_id))
        deleting.start()
        gate.open.set()
        deleting.join(SECONDS)
        with pytest.raises(errors.SessionNotFound):
            store.get(dirty.session_id)
        until(lambda: store.recovering == 0)
        assert store.budget.used == 0

    def test_a_session_that_cannot_be_recovered_keeps_nobody_waiting(self, disk: Disk, dirty: Session) -> None:
        _middle(one(disk, dirty, "journal-*"))
        store = disk.open()
        assert store.recovering == 0
        assert len(store.list().sessions) == 1

    def test_memory_may_be_too_little_for_it_for_a_while(self, disk: Disk, dirty: Session) -> None:
        before = standing(dirty)
        store = disk.open(max_total_bytes=10)
        with pytest.raises(errors.OutOfMemory):
            store.get(dirty.session_id).digest(UNBOUNDED)
        assert len(store.list().sessions) == 1, "the other"
        assert standing(killed(disk, dirty)) == before


class Gate:
    """Lets recovery pass two mutations, and others once it is open."""

    def __init__(self, recover: Callable[[FileSession], Recovery]) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self._recover = recover

    def recover(self, files: FileSession) -> Recovery:
        found = self._recover(files)
        return replace(found, mutations=self._paced(found.mutations))

    def _paced(self, mutations: Iterator[Mutation]) -> Iterator[Mutation]:
        for number, mutation in enumerate(mutations):
            if number == 2:
                self.reached.set()
                assert self.open.wait(SECONDS)
            yield mutation
