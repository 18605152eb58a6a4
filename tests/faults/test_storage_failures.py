"""When the disk is full or fails, the call that needs it is refused, nothing has changed, and all goes on after."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.faults.actor import Actor
from tests.faults.oracle import Oracle
from tests.faults.rounds import Arena, Disturbance, connected, play
from tests.faults.script import tour
from tests.faults.server import Server
from tests.faults.tasks import TASKS
from tests.faults.verdict import Judge, Verdict

import backwire as bw

TASK = TASKS[0]
ONCE = bw.Retry(attempts=1)

Start = Callable[[str], bw.Client]


@pytest.fixture
def start(arena: Arena) -> Iterator[Start]:
    """Starts a server with a failpoint armed, and gives a client that repeats nothing."""
    server = Server(arena.launcher, arena.directory, "--durability", "fsync")
    clients: list[bw.Client] = []

    def starting(failpoint: str) -> bw.Client:
        assert server.start(failpoint)
        clients.append(bw.connect(server.address, retry=ONCE, timeout=30.0))
        return clients[-1]

    with server:
        yield starting
        for client in clients:
            client.close()


CALLS: dict[str, Callable[[Actor, str], Any]] = {
    "train_step": lambda actor, key: actor.session.train_step(TASK.batch(2), request_id=key),
    "forward": lambda actor, key: actor.session.forward(TASK.batch(2), request_id=key),
    "set_parameters": lambda actor, key: actor.session.set_parameters({TASK.parameter: TASK.value(3)}, request_id=key),
    "zero_gradients": lambda actor, key: actor.session.zero_gradients(request_id=key),
    "attach": lambda actor, key: actor.session.attach(request_id=key),
    "save_checkpoint": lambda actor, key: actor.session.save_checkpoint("best", request_id=key),
    "fork": lambda actor, key: actor.session.fork(request_id=key),
    "fit": lambda actor, _: list(actor.session.train_steps([TASK.batch(2)])),
}


@pytest.mark.parametrize(
    ("call", "failpoint"),
    [
        ("train_step", "journal.append=ENOSPC@2"),
        ("train_step", "journal.append.half=EIO@2"),
        ("train_step", "journal.append.written=EDQUOT@2"),
        ("forward", "journal.append.half=ENOSPC@2"),
        ("set_parameters", "journal.append.half=EROFS@2"),
        ("zero_gradients", "journal.append.half=ENOSPC@2"),
        ("attach", "journal.append.half=ENOSPC@2"),
        ("fit", "journal.append.half=ENOSPC@2"),
        ("save_checkpoint", "checkpoint.half=ENOSPC"),
        ("save_checkpoint", "checkpoint.synced=EIO"),
        ("save_checkpoint", "manifest.half=ENOSPC@2"),
        ("fork", "segment.created=ENOSPC@2"),
        ("fork", "fork.linked=EIO"),
        ("fork", "create.filled=EIO@2"),
    ],
)
def test_a_call_without_room_on_the_disk_is_refused_and_changes_nothing(
    start: Start, call: str, failpoint: str
) -> None:
    client = start(failpoint)
    actor = Actor(client, TASK, call)
    actor.train_step(1)
    before = actor.digest()
    with pytest.raises(bw.StorageFailedError) as told:
        CALLS[call](actor, "again")
    assert told.value.retry_after
    assert actor.digest() == before
    assert [each.id for each in client.sessions()] == [actor.session.id]
    assert actor.session.checkpoints() == []
    CALLS[call](actor, "again")


def test_a_session_that_the_disk_has_no_room_for_is_not_there(start: Start) -> None:
    client = start("definition.half=ENOSPC")
    with pytest.raises(bw.StorageFailedError):
        client.create_session(TASK.loss, TASK.optimizer, request_id="again")
    assert list(client.sessions()) == []
    session = client.create_session(TASK.loss, TASK.optimizer, request_id="again")
    assert [each.id for each in client.sessions()] == [session.id]


@pytest.mark.parametrize("failpoint", ["journal.flush=EIO@3", "journal.append.half=EIO@3,journal.append.undo=EIO"])
def test_after_a_disk_that_may_have_written_or_not_a_repetition_is_applied_once(
    arena: Arena, start: Start, failpoint: str
) -> None:
    client, verdict = start(failpoint), Verdict()
    actor, oracle = Actor(client, TASK, "unsure"), Oracle(arena.undisturbed, TASK)
    for batch in range(1, 6):
        oracle.train_step(batch)
        for _ in range(4):
            try:
                actor.session.train_step(TASK.batch(batch), request_id=f"step {batch}")
                break
            except bw.StorageFailedError:
                verdict.happened["refused"] += 1
        assert actor.digest() == oracle.digest()
    assert 1 <= verdict.happened["refused"] <= 2
    oracle.close()


def test_a_script_rides_through_errors_of_the_disk_by_itself(arena: Arena) -> None:
    script = [deed for deed in tour() if not deed.piped]
    errors = ("manifest.half=ENOSPC@3,journal.append.half=EIO@9,checkpoint.synced=ENOSPC@2",)
    verdict = play(arena, 8, script, Disturbance("fsync", failpoints=errors))
    assert verdict.told == []


def test_training_goes_on_where_checkpoints_cannot_be_written(arena: Arena) -> None:
    verdict = Verdict()
    failing = ",".join(f"checkpoint.{place}=ENOSPC" for place in ("begun", "half", "written", "synced", "renamed"))
    with Server(arena.launcher, arena.directory) as server:
        server.start(failing)
        with connected(server.address) as client:
            oracle = Oracle(arena.undisturbed, TASK)
            judge = Judge(verdict, Actor(client, TASK, "no checkpoints"), oracle)
            assert all(judge.do(deed) for deed in tour() if deed.name in ("train_step", "pipe_steps", "fit"))
            server.kill()
            server.start()
            judge.compare("the start")
            oracle.close()
    assert verdict.told == []
