"""Branches go ways of their own, and imports are there wholly or not at all; both over restarts."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage.durable import (
    TOUR,
    Disk,
    backward,
    create,
    do,
    forward,
    key_of,
    killed,
    standing,
    step,
    train,
)

from backwire_server.sessions import errors
from backwire_server.sessions.info import SessionInfo
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session

HALF = list(TOUR)[:14]
"""So much of the tour that there are passes, contributions, requests and a lease."""


def half(disk: Disk) -> tuple[Session, Session]:
    """A session amidst the tour, and an undisturbed one."""
    made = create(disk.open()), disk.undisturbed()
    for each in made:
        do(each, *HALF)
    return made


def branch(disk: Disk, session: Session, key: RequestKey | None = None) -> Session:
    return disk.store.get(disk.store.fork(UNBOUNDED, session.session_id, key).session_id)


def go_on(session: Session, start: int) -> str:
    """Trains in a way that depends on all of the state, and returns the digest."""
    train(start)(session, None)
    forward(start + 1, f"b {start}")(session, None)
    backward(f"b {start}")(session, None)
    step()(session, None)
    return session.digest(UNBOUNDED)


@pytest.fixture
def ways(disk: Disk) -> dict[int, str]:
    """The digest of a session that went on from the middle of the tour by one of three ways."""
    found = {}
    for start in (100, 200, 300):
        session = disk.undisturbed()
        do(session, *HALF[:-1])
        found[start] = go_on(session, start)
    return found


class TestABranch:
    def test_begins_with_the_state_alone(self, disk: Disk) -> None:
        session, undisturbed = half(disk)
        found = branch(disk, session)
        for other in (found, killed(disk, found)):
            assert (standing(other).digest, standing(other).passes) == (undisturbed.digest(UNBOUNDED), ())
            assert standing(other).lease is None
            assert other.info().step == undisturbed.info().step
            with pytest.raises(errors.PassNotFound):
                backward("s")(other, None)
            with pytest.raises(errors.StepMismatch):
                do(other, "step at a rate")
        assert standing(killed(disk, session)) == standing(undisturbed)

    def test_goes_its_own_way_in_memory_and_after_a_restart(self, disk: Disk, ways: dict[int, str]) -> None:
        session, _ = half(disk)
        session.detach(UNBOUNDED, 1)
        one = branch(disk, session)
        two = branch(disk, one)
        made = {100: session, 200: one, 300: two}
        assert {start: go_on(each, start) for start, each in made.items()} == ways
        disk.open()
        for start, each in made.items():
            found = disk.store.get(each.session_id)
            assert found.digest(UNBOUNDED) == ways[start]
            assert found.hibernate()
            assert found.digest(UNBOUNDED) == ways[start]

    @pytest.mark.parametrize("gone", range(3))
    @pytest.mark.parametrize("end", ["deleted", "hibernated"])
    def test_is_not_disturbed_when_another_goes(self, disk: Disk, ways: dict[int, str], gone: int, end: str) -> None:
        session, _ = half(disk)
        session.detach(UNBOUNDED, 1)
        family = [session, branch(disk, session)]
        family.append(branch(disk, family[1]))
        leaving = family.pop(gone)
        go_on(leaving, 1)
        if end == "deleted":
            disk.store.delete(UNBOUNDED, leaving.session_id)
        else:
            assert leaving.hibernate()
        assert [go_on(each, start) for each, start in zip(family, (100, 200), strict=True)] == [ways[100], ways[200]]
        disk.open()
        found = [disk.store.get(each.session_id).digest(UNBOUNDED) for each in family]
        assert found == [ways[100], ways[200]]

    def test_of_a_session_that_hibernates_is_one_of_what_it_was(self, disk: Disk) -> None:
        session, undisturbed = half(disk)
        assert session.hibernate()
        assert branch(disk, session).digest(UNBOUNDED) == undisturbed.digest(UNBOUNDED)

    def test_is_told_again_to_a_repetition_when_its_parent_is_gone(self, disk: Disk) -> None:
        session, _ = half(disk)
        made = disk.store.fork(UNBOUNDED, session.session_id, key_of("branch"))
        disk.store.delete(UNBOUNDED, session.session_id)
        assert disk.store.fork(UNBOUNDED, session.session_id, key_of("branch")) == made
        again = disk.open().fork(UNBOUNDED, session.session_id, key_of("branch"))
        assert again.session_id == made.session_id
        with pytest.raises(errors.SessionNotFound):
            disk.store.fork(UNBOUNDED, session.session_id, key_of("another"))

    def test_has_the_durability_of_its_parent(self, disk: Disk) -> None:
        disk.open(Durability.FSYNC)
        for level in Durability:
            session = create(disk.store, durability=level)
            assert branch(disk, session).info().durability is level

    @pytest.mark.parametrize(
        "place", ["segment.created", "fork.linked", "manifest.half", "fork.journal", "create.filled"]
    )
    def test_that_the_disk_has_no_room_for_is_not_there(
        self, disk: Disk, arm: Callable[[str], object], place: str
    ) -> None:
        session, undisturbed = half(disk)
        used = disk.store.budget.used
        arm(f"{place}=ENOSPC")
        with pytest.raises(errors.StorageFailed):
            branch(disk, session, key_of("branch"))
        assert [info.session_id for info in disk.store.list().sessions] == [session.session_id]
        assert disk.store.budget.used == used
        assert len(list((disk.directory / "sessions").iterdir())) == 1
        found = branch(disk, session, key_of("branch"))
        assert branch(disk, session, key_of("branch")).session_id == found.session_id
        assert standing(session) == standing(undisturbed)
        assert standing(killed(disk, session)) == standing(undisturbed)


class TestAnImport:
    @pytest.fixture
    def file(self, disk: Disk, tmp_path: Path) -> Path:
        """The file of a session amidst the tour."""
        session, _ = half(disk)
        path = tmp_path / "file"
        path.write_bytes(b"".join(disk.store.export(UNBOUNDED, session.session_id)))
        disk.store.delete(UNBOUNDED, session.session_id)
        return path

    def imported(self, disk: Disk, file: Path, durability: Durability | None = None) -> SessionInfo:
        return disk.store.import_session(UNBOUNDED, str(file), key_of("import"), durability)

    def test_has_the_same_bits_and_goes_on_with_the_same(self, disk: Disk, file: Path, ways: dict[int, str]) -> None:
        undisturbed = disk.undisturbed()
        do(undisturbed, *HALF)
        info = self.imported(disk, file)
        assert (info.step, info.contributions, info.forward_ids, info.lease) == (4, 0, (), None)
        session = disk.store.get(info.session_id)
        for found in (session, killed(disk, session)):
            assert found.digest(UNBOUNDED) == undisturbed.digest(UNBOUNDED)
        assert found.hibernate()
        assert go_on(found, 100) == ways[100]
        assert killed(disk, found).digest(UNBOUNDED) == ways[100]

    def test_keeps_what_was_accumulated(self, disk: Disk, file: Path) -> None:
        session, undisturbed = disk.store.get(self.imported(disk, file).session_id), disk.undisturbed()
        do(undisturbed, *HALF[:-1])
        for each in (session, undisturbed):
            forward(1, "p")(each, None)
            backward("p", weight=0.5)(each, None)
        file.write_bytes(b"".join(disk.store.export(UNBOUNDED, session.session_id)))
        again = disk.store.get(disk.store.import_session(UNBOUNDED, str(file)).session_id)
        for found in (again, killed(disk, again)):
            assert (found.digest(UNBOUNDED), found.info().contributions) == (undisturbed.digest(UNBOUNDED), 1)

    def test_is_the_same_session_for_the_same_request_also_after_a_restart(self, disk: Disk, file: Path) -> None:
        session_id = self.imported(disk, file).session_id
        assert self.imported(disk, file).session_id == session_id
        disk.open()
        assert self.imported(disk, file).session_id == session_id
        assert len(disk.store.list().sessions) == 1

    @pytest.mark.parametrize(
        "place",
        ["create.made", "definition.half", "checkpoint.half", "checkpoint.synced", "manifest.half", "segment.headed"],
    )
    def test_that_the_disk_has_no_room_for_is_not_there(
        self, disk: Disk, file: Path, arm: Callable[[str], object], place: str
    ) -> None:
        arm(f"{place}=ENOSPC")
        with pytest.raises(errors.StorageFailed):
            self.imported(disk, file)
        assert (disk.store.list().sessions, disk.files(), disk.store.budget.used) == ([], {}, 0)
        assert list((disk.directory / "sessions").iterdir()) == []
        session_id = self.imported(disk, file).session_id
        assert [info.session_id for info in disk.open().list().sessions] == [session_id]

    def test_of_a_damaged_file_leaves_nothing(self, disk: Disk, file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        with pytest.raises(errors.InvalidExport):
            self.imported(disk, file)
        assert (disk.store.list().sessions, disk.files(), disk.store.budget.used) == ([], {}, 0)

    def test_that_there_is_no_memory_for_leaves_nothing(self, disk: Disk, file: Path) -> None:
        disk.open(max_total_bytes=100)
        with pytest.raises(errors.OutOfMemory):
            self.imported(disk, file)
        assert (disk.store.list().sessions, disk.files(), disk.store.budget.used) == ([], {}, 0)

    def test_may_be_kept_in_memory_alone(self, disk: Disk, file: Path) -> None:
        info = self.imported(disk, file, Durability.MEMORY)
        assert info.durability is Durability.MEMORY
        assert disk.files() == {}
        assert disk.open().list().sessions == []


def test_a_file_is_of_one_moment_though_training_goes_on_while_it_is_read(disk: Disk, tmp_path: Path) -> None:
    session, undisturbed = half(disk)
    pieces = disk.store.export(UNBOUNDED, session.session_id)
    begun = next(pieces)
    do(session, *list(TOUR)[14:])
    (tmp_path / "file").write_bytes(begun + b"".join(pieces))
    info = disk.store.import_session(UNBOUNDED, str(tmp_path / "file"))
    assert disk.store.get(info.session_id).digest(UNBOUNDED) == undisturbed.digest(UNBOUNDED)
