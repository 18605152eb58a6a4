"""SaveCheckpoint on a session that others train meanwhile: answered once, and remembered whoever still waits for it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from tests.storage.durable import Disk, Gone, create, do, key_of, killed, standing, train
from tests.storage.toy import image
from tests.waiting import until

from backwire_server.sessions import errors
from backwire_server.sessions.calls import CheckpointInfo
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED, Unbounded
from backwire_server.sessions.session import Session

SECONDS = 30.0

Arm = Callable[[str], object]


class Desk:
    """A session with a thread that writes nothing until `go`, and threads for callers."""

    def __init__(self, disk: Disk, pool: ThreadPoolExecutor, **how: Any) -> None:
        self.session: Session = create(disk.open(**how))
        self.go = threading.Event()
        self._pool = pool
        disk.stores[-1][1]._place.checkpointer.submit(image([]), lambda _: self.go.wait(SECONDS))

    def save(self, name: str = "best", key: RequestKey | None = None, scope: Any = UNBOUNDED) -> Future[CheckpointInfo]:
        """Saves in a thread, and returns when that has begun."""
        found = self._pool.submit(self.session.save_checkpoint, scope, name, key)
        while self.session._keeper.saving is None and not found.done():
            time.sleep(0.001)
        return found


class Waiting(Unbounded):
    """The scope of a call, which tells when it waits for another."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def remaining(self) -> float | None:
        self.begun.set()
        return super().remaining()


@pytest.fixture
def desk(disk: Disk) -> Iterator[Desk]:
    with ThreadPoolExecutor(4) as pool:
        made = Desk(disk, pool)
        try:
            yield made
        finally:
            made.go.set()


def names(session: Session) -> list[str]:
    return [each.name for each in session.checkpoints(UNBOUNDED) if each.name]


def test_others_train_while_a_checkpoint_is_saved_that_is_of_before(disk: Disk, desk: Desk) -> None:
    session, undisturbed = desk.session, disk.undisturbed()
    do(session, "train")
    before = session.digest(UNBOUNDED)
    saving = desk.save()
    do(session, "train again", "forward p", "backward p", "step")
    assert (saving.done(), names(session)) == (False, [])
    desk.go.set()
    assert (saving.result(SECONDS).digest, saving.result().step) == (before, 1)
    do(undisturbed, "train", "train again", "forward p", "backward p", "step")
    assert standing(session) == standing(undisturbed)
    assert session.restore_checkpoint(UNBOUNDED, "best", None).digest == before


def test_a_repeated_request_waits_for_the_first_and_gets_its_answer(desk: Desk) -> None:
    first = desk.save(key=key_of("save"))
    do(desk.session, "train")
    waiting = Waiting()
    second = desk.save(key=key_of("save"), scope=waiting)
    assert waiting.begun.wait(SECONDS)
    assert [first.done(), second.done()] == [False, False]
    desk.go.set()
    assert second.result(SECONDS) == first.result(SECONDS)
    assert first.result().step == 0
    assert desk.session.save_checkpoint(UNBOUNDED, "best", key_of("save")) == first.result()


def test_a_request_with_the_id_of_one_that_is_still_saved_is_refused_once_that_is_known(desk: Desk) -> None:
    first = desk.save(key=key_of("save"))
    waiting = Waiting()
    other = desk.save("other", RequestKey("save", b"\x02"), waiting)
    assert waiting.begun.wait(SECONDS)
    desk.go.set()
    with pytest.raises(errors.RequestIdReused):
        other.result(SECONDS)
    assert (first.result().name, names(desk.session)) == ("best", ["best"])


def test_checkpoints_of_several_callers_are_saved_one_after_another(desk: Desk) -> None:
    saves = [desk.save(name) for name in ("a", "b", "c")]
    desk.go.set()
    assert [each.result(SECONDS).name for each in saves] == ["a", "b", "c"]
    assert sorted(names(desk.session)) == ["a", "b", "c"]


def test_a_checkpoint_whose_caller_went_away_is_there_and_its_request_remembered(disk: Disk, desk: Desk) -> None:
    saving = desk.save(key=key_of("save"), scope=Gone(errors.Cancelled("gone"), 2))
    with pytest.raises(errors.Cancelled):
        saving.result(SECONDS)
    desk.go.set()
    answer = desk.session.save_checkpoint(UNBOUNDED, "best", key_of("save"))
    do(desk.session, "train")
    assert desk.session.checkpoints(UNBOUNDED) == [answer]
    again = killed(disk, desk.session)
    assert again.save_checkpoint(UNBOUNDED, "best", key_of("save")) == answer
    with pytest.raises(errors.RequestIdReused):
        train(1)(again, RequestKey("save", b"\x02"))


def test_the_request_is_remembered_by_calls_of_other_kinds_when_nobody_waits_for_it(desk: Desk) -> None:
    saving = desk.save(key=key_of("save"))
    desk.go.set()
    saving.result(SECONDS)
    with pytest.raises(errors.RequestIdReused):
        train(1)(desk.session, RequestKey("save", b"\x02"))


@pytest.mark.parametrize("place", ["checkpoint.half", "manifest.half"])
def test_a_save_that_fails_tells_its_caller_and_a_repetition_that_waited_does_it(
    desk: Desk, arm: Arm, place: str
) -> None:
    first = desk.save(key=key_of("save"))
    waiting = Waiting()
    second = desk.save(key=key_of("save"), scope=waiting)
    assert waiting.begun.wait(SECONDS)
    arm(f"{place}=ENOSPC")
    desk.go.set()
    with pytest.raises(errors.StorageFailed, match="make room"):
        first.result(SECONDS)
    assert second.result(SECONDS).name == "best"
    assert names(desk.session) == ["best"]
    assert desk.session.save_checkpoint(UNBOUNDED, "best", key_of("save")) == second.result()


def test_a_save_that_nobody_knows_to_be_on_disk_is_answered_when_it_is_repeated(desk: Desk, arm: Arm) -> None:
    do(desk.session, "train")
    before = standing(desk.session)
    first = desk.save(key=key_of("save"))
    arm("manifest.renamed=EIO")
    desk.go.set()
    with pytest.raises(errors.StorageFailed, match="not known"):
        first.result(SECONDS)
    assert desk.session.save_checkpoint(UNBOUNDED, "best", key_of("save")).digest == before.digest
    assert standing(desk.session) == before


def test_a_session_hibernates_after_what_is_being_saved(desk: Desk) -> None:
    do(desk.session, "train")
    before = standing(desk.session)
    saving = desk.save(key=key_of("save"))
    gone = threading.Thread(target=until, args=(desk.session.hibernate,))
    gone.start()
    desk.go.set()
    gone.join(SECONDS)
    assert not desk.session.awake
    assert desk.session.save_checkpoint(UNBOUNDED, "best", key_of("save")) == saving.result(SECONDS)
    assert standing(desk.session) == before
    log = desk.session._keeper.content.log
    assert log.nbytes == sum(answer.nbytes for _, answer in log.entries())


@pytest.mark.parametrize("what", ["delete", "restore"])
def test_what_is_done_to_a_checkpoint_comes_after_it_was_saved(desk: Desk, what: str) -> None:
    saving = desk.save(key=key_of("save"))
    do(desk.session, "train")
    desk.go.set()
    if what == "delete":
        desk.session.delete_checkpoint(UNBOUNDED, "best")
        assert names(desk.session) == []
    else:
        desk.session.restore_checkpoint(UNBOUNDED, "best", None)
        assert desk.session.digest(UNBOUNDED) == saving.result(SECONDS).digest
    assert desk.session.save_checkpoint(UNBOUNDED, "best", key_of("save")) == saving.result(SECONDS)


def test_a_session_is_deleted_after_what_is_being_saved(disk: Disk, desk: Desk) -> None:
    saving = desk.save()
    desk.go.set()
    disk.store.delete(UNBOUNDED, desk.session.session_id)
    assert saving.result(SECONDS).name == "best"
    assert disk.files() == {}
    assert disk.store.budget.used == 0


def test_a_branch_has_nothing_of_what_is_being_saved(disk: Disk, desk: Desk) -> None:
    do(desk.session, "train")
    desk.save()
    branch = disk.store.get(disk.store.fork(UNBOUNDED, desk.session.session_id).session_id)
    assert branch.digest(UNBOUNDED) == desk.session.digest(UNBOUNDED)
    desk.go.set()
    assert names(branch) == []
