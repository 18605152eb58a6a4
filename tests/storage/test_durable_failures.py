"""A call on a durable session that fails has changed nothing, in memory or on disk, or it is done once all the same."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from tests.storage.durable import TOUR, Disk, Gone, backward, batch, create, do, forward, killed, standing, step

from backwire_server.engine.errors import EngineError
from backwire_server.sessions import errors
from backwire_server.sessions.calls import ForwardCall, TrainCall
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.lease import WriterLease
from backwire_server.sessions.scope import UNBOUNDED, Unbounded
from backwire_server.sessions.session import Session
from backwire_server.sessions.training.accumulator import Accumulator
from backwire_server.sessions.training.parameters import ParameterStore
from backwire_server.sessions.training.passes import PassTable
from backwire_server.storage import failpoints

REFUSED: Mapping[str, tuple[type[Exception] | tuple[type[Exception], ...], Callable[[Session], Any]]] = {
    "no such pass": (errors.PassNotFound, lambda s: backward("nope")(s, None)),
    "a pass of the name": (errors.PassExists, lambda s: forward(1, "live")(s, None)),
    "no such input gradient": (EngineError, lambda s: backward("live", wrt=("nope",))(s, None)),
    "a weight of nothing": (errors.InvalidRequest, lambda s: backward("live", weight=0.0)(s, None)),
    "another step": (errors.StepMismatch, lambda s: step(expected_step=7)(s, None)),
    "inputs that do not fit": (EngineError, lambda s: s.train_step(UNBOUNDED, TrainCall({"x": np.zeros(3)}))),
    "NaN": (errors.NonFiniteGradient, lambda s: s.train_step(UNBOUNDED, TrainCall(_nan()))),
    "no such parameter": (errors.UnknownParameter, lambda s: s.set_parameters(UNBOUNDED, {"nope": np.zeros(1)})),
    "a parameter of another type": (EngineError, lambda s: s.set_parameters(UNBOUNDED, {"in/bias": np.zeros(6)})),
    "another lease": (errors.WriterFenced, lambda s: s.zero_gradients(UNBOUNDED, lease=3)),
    "no such lease": (errors.WriterFenced, lambda s: s.detach(UNBOUNDED, 3)),
    "no such checkpoint": (errors.CheckpointNotFound, lambda s: s.delete_checkpoint(UNBOUNDED, "nope")),
    "no checkpoint to go back to": (
        errors.CheckpointNotFound,
        lambda s: s.restore_checkpoint(UNBOUNDED, "nope", None),
    ),
    "no step to go back to": (errors.CheckpointNotFound, lambda s: s.restore_checkpoint(UNBOUNDED, "", 99)),
    "a caller who is gone": (errors.Cancelled, lambda s: s.forward(_gone(1), ForwardCall(_nan(0.0)))),
    "a saver who is gone": (errors.Cancelled, lambda s: s.save_checkpoint(_gone(1), "best")),
}


def _nan(value: float = np.nan) -> dict[str, Any]:
    return {"x": np.full((3, 4), value, "f4"), "t": np.zeros((3, 2), "f4")}


def _gone(checks: int) -> Gone:
    return Gone(errors.Cancelled("gone"), checks)


@pytest.mark.parametrize("why", REFUSED)
def test_a_call_that_is_refused_leaves_nothing_on_disk_and_nothing_in_memory(disk: Disk, why: str) -> None:
    session = create(disk.open())
    do(session, "train", "forward p", "backward p")
    forward(2, "live")(session, None)
    before, files = standing(session), disk.files()
    error, call = REFUSED[why]
    with pytest.raises(error):
        call(session)
    assert standing(session) == before
    assert disk.files() == files
    assert standing(killed(disk, session)) == before


@pytest.mark.parametrize("place", ["journal.append", "journal.append.half", "journal.append.written"])
def test_a_disk_that_is_full_refuses_a_call_and_takes_its_repetition(
    disk: Disk, arm: Callable[[str], Mapping[str, int]], place: str
) -> None:
    session, undisturbed = create(disk.open()), disk.undisturbed()
    for name in TOUR:
        before, files = standing(session), disk.files()
        passed = arm(f"{place}=ENOSPC")
        with pytest.raises(errors.StorageFailed, match="make room") as caught:
            do(session, name)
        assert (passed[place], caught.value.retry_after) == (1, 1.0)
        assert standing(session) == before, name
        assert disk.files() == files, name
        assert do(session, name) == do(undisturbed, name)
    assert standing(killed(disk, session)) == standing(undisturbed)


def test_a_pass_that_was_dropped_before_the_disk_was_full_is_still_told_to_the_journal(
    disk: Disk, arm: Callable[[str], object]
) -> None:
    session = create(disk.open(max_passes=1))
    forward(1, "p")(session, None)
    forward(2, "q")(session, None)
    arm("journal.append=ENOSPC")
    with pytest.raises(errors.StorageFailed):
        backward("q")(session, None)
    backward("q")(session, None)
    before = standing(session)
    assert standing(killed(disk, session, max_passes=64)) == before
    assert before.passes == ()


FAILING: Mapping[str, tuple[type, str]] = {
    "train": (ParameterStore, "refresh"),
    "forward p": (PassTable, "add"),
    "set parameters": (ParameterStore, "replace"),
    "backward p": (Accumulator, "add"),
    "backward p again": (PassTable, "use_up"),
    "step": (Accumulator, "clear"),
    "zero gradients": (Accumulator, "clear"),
    "attach": (WriterLease, "apply"),
}
"""What fails, for each of these mutations, after its record was written."""


@pytest.mark.parametrize("last", FAILING)
def test_a_call_that_fails_after_its_record_was_written_is_done_once_all_the_same(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    session, undisturbed = create(disk.open()), disk.undisturbed()
    names = list(TOUR)[: list(TOUR).index(last)]
    do(session, *names)
    do(undisturbed, *names, last)
    before = len(b"".join(disk.files().values()))

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as broken:
        broken.setattr(*FAILING[last], fail)
        with pytest.raises(MemoryError):
            do(session, last)
    assert len(b"".join(disk.files().values())) > before, "the record was written"
    assert not session.awake
    assert standing(session) == standing(undisturbed)
    assert do(session, last) == do(undisturbed, last)
    assert standing(session) == standing(undisturbed)


def test_a_flush_that_failed_leaves_nobody_guessing(disk: Disk, arm: Callable[[str], object]) -> None:
    session, undisturbed = create(disk.open(Durability.FSYNC)), disk.undisturbed()
    do(session, "train")
    arm("journal.flush=EIO")
    with pytest.raises(errors.StorageFailed):
        do(session, "train again")
    failpoints.disarm()
    assert do(session, "train again") == do(undisturbed, "train", "train again")[1:]
    assert standing(session) == standing(undisturbed)
    assert standing(killed(disk, session)) == standing(undisturbed)


def test_what_was_not_flushed_is_not_acknowledged_though_others_went_on_meanwhile(
    disk: Disk, arm: Callable[[str], object]
) -> None:
    """An answer may wait for its flush while another call finds that it failed, and makes the session anew."""
    waiting: list[Callable[[], None]] = []

    class Later(Unbounded):
        def before_answer(self, wait: Callable[[], None]) -> None:
            waiting.append(wait)

    session = create(disk.open(Durability.FSYNC))
    session.train_step(Later(), TrainCall(batch(1)))
    arm("journal.flush=EIO")
    with pytest.raises(errors.StorageFailed):
        do(session, "train again")
    failpoints.disarm()
    do(session, "train again")
    with pytest.raises(errors.StorageFailed):
        waiting[0]()


def test_a_quota_of_the_disk_refuses_what_would_go_beyond_it_until_there_is_room(disk: Disk) -> None:
    session, undisturbed = create(disk.open()), disk.undisturbed()
    do(session, "train")
    session = killed(disk, session, max_disk_bytes=sum(map(len, disk.files().values())) + 10)
    before, files = standing(session), disk.files()
    for call in (
        lambda: do(session, "train again"),
        lambda: create(disk.store),
        lambda: disk.store.fork(UNBOUNDED, session.session_id),
        lambda: session.save_checkpoint(UNBOUNDED, "best"),
        lambda: session.restore_checkpoint(UNBOUNDED, "", 0),
    ):
        with pytest.raises(errors.DiskQuotaExceeded) as caught:
            call()
        assert caught.value.quota == "max_disk_bytes"
        assert standing(session) == before
    assert {name: data for name, data in disk.files().items() if name in files} == files
    assert [info.session_id for info in disk.store.list().sessions] == [session.session_id]
    do(killed(disk, session), "train again")
    do(undisturbed, "train", "train again")
    assert standing(disk.store.get(session.session_id)) == standing(undisturbed)
