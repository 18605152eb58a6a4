"""Checkpoints are copied to an object store, and a server whose directory is lost goes on from them."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.storage import toy
from tests.storage.durable import SECONDS, create, standing, train
from tests.storage.journal.power import Disk

from backwire_server.sessions.info import Home
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.store.store import SessionStore
from backwire_server.storage.checkpoints import copies
from backwire_server.storage.sharing.shared_vault import SharedVault
from backwire_server.storage.vault import FileVault
from backwire_server.storage.verification import session_ids, verify_session

fsspec = pytest.importorskip("fsspec")

Start = Callable[..., SessionStore]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A service with the interface of S3 on this machine, that has a bucket."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto.start()
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "anybody's")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("trainings")
        yield "trainings"
    moto.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def url(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty store."""
    place = f"{request.getfixturevalue('s3')}/{tmp_path.name}" if request.param == "s3" else tmp_path
    found = f"{request.param}://{place}/store"
    yield found
    files, root = fsspec.core.url_to_fs(found)
    if files.exists(root):
        files.rm(root, recursive=True)


@pytest.fixture(params=[FileVault, SharedVault])
def start(tmp_path: Path, url: str, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a server on a directory of this name, which copies to the store."""
    started: list[SessionStore] = []
    shared = {"replica": "a", "lease": 60.0} if request.param is SharedVault else {}

    def begin(name: str, **settings: Any) -> SessionStore:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        limits = Limits()
        vault = request.param(path, default=Durability.JOURNAL, limits=limits, checkpoint_url=url, **shared, **settings)
        started.append(SessionStore(limits, Home(), vault))
        return started[-1]

    yield begin
    for store in started:
        store.close()


def facts(session: Session) -> tuple[int, str]:
    return session.standing(UNBOUNDED).step, session.digest(UNBOUNDED)


def test_a_server_whose_directory_is_lost_goes_on_from_the_newest_checkpoints(start: Start, tmp_path: Path) -> None:
    store = start("one")
    session, other = create(store), create(store)
    for number in range(3):
        train(number)(session, None)
    session.save_checkpoint(UNBOUNDED, "best")
    assert session.hibernate()
    for number in range(3, 6):
        train(number)(session, None)
    before = standing(session), facts(session)
    store.close(60.0)
    again = start("two")
    assert {each.session_id for each in again.list().sessions} == {session.session_id, other.session_id}
    restored = again.get(session.session_id)
    assert (standing(restored), facts(restored)) == before
    assert "best" in [each.name for each in restored.checkpoints(UNBOUNDED)]
    train(1)(restored, None)
    assert facts(restored)[0] == before[1][0] + 1
    again.close(60.0)
    for name in session_ids(tmp_path / "two"):
        verify_session(tmp_path / "two", name, Limits())


@pytest.mark.parametrize("hibernates", [False, True])
def test_what_was_saved_by_name_last_is_what_a_session_goes_on_from(start: Start, *, hibernates: bool) -> None:
    store = start("one")
    session = create(store)
    train(0)(session, None)
    assert not hibernates or session.hibernate()
    train(1)(session, None)
    session.save_checkpoint(UNBOUNDED, "best")
    before = standing(session), facts(session)
    store.close()  # without another checkpoint
    restored = start("two").get(session.session_id)
    assert (standing(restored), facts(restored)) == before
    assert [each.name for each in restored.checkpoints(UNBOUNDED) if each.name] == ["best"]
    train(2)(restored, None)
    restored.restore_checkpoint(UNBOUNDED, "best", None)
    assert facts(restored) == before[1]


def test_copies_of_what_no_manifest_names_are_removed(start: Start, url: str) -> None:
    store = start("one")
    session = create(store)
    for _ in range(4):
        train(1)(session, None)
        assert session.hibernate()
    store.close(60.0)
    files, root = fsspec.core.url_to_fs(url)
    names = [each.rpartition("/")[2] for each in files.ls(f"{root}/{session.session_id}", detail=False)]
    assert sorted(name.rpartition(".")[2] for name in names) == ["binpb", "json", "safetensors"]


def test_a_session_that_is_deleted_is_not_restored(start: Start) -> None:
    store = start("one")
    session, other = create(store), create(store)
    for each in (session, other):
        train(1)(each, None)
        assert each.hibernate()
    store.delete(UNBOUNDED, session.session_id, RequestKey("deletion", b""))
    store.close(60.0)
    assert [each.session_id for each in start("two").list().sessions] == [other.session_id]


def test_a_directory_that_has_sessions_is_left_as_it_is(start: Start) -> None:
    store, other = start("one"), start("two")
    train(1)(create(store), None)
    mine = create(other)
    for each in (store, other):
        each.close(60.0)
    assert [each.session_id for each in start("two").list().sessions] == [mine.session_id]


def test_a_copy_that_is_damaged_is_left_out_and_the_others_are_restored(start: Start, url: str) -> None:
    store = start("one")
    session, other = create(store), create(store)
    for each in (session, other):
        train(1)(each, None)
    store.close(60.0)
    files, root = fsspec.core.url_to_fs(url)
    (manifest,) = files.glob(f"{root}/{session.session_id}/*.json")
    files.pipe_file(manifest, b"{}")
    assert [each.session_id for each in start("two").list().sessions] == [other.session_id]


def copying_to(url: str, directory: Path) -> FileVault:
    return FileVault(directory, default=Durability.JOURNAL, limits=Limits(), checkpoint_url=url)


@pytest.mark.parametrize("place", ["trainigns", "trainigns/of/mine"])
def test_a_bucket_that_is_not_there_is_told_and_not_made(place: str, s3: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=rf"cannot be copied to --checkpoint-url s3://{place}: .*; see that the bucket"):
        copying_to(f"s3://{place}", tmp_path)
    assert fsspec.filesystem("s3").ls("", detail=False, refresh=True) == [s3]


def test_a_bucket_is_tried_at_the_start_without_a_trace(s3: str, tmp_path: Path) -> None:
    copying_to(f"s3://{s3}", tmp_path).close()
    assert fsspec.filesystem("s3").ls(s3, detail=False, refresh=True) == []


def test_a_directory_that_would_be_in_none_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot be copied to --checkpoint-url .*missing/store: .*; see that"):
        copying_to(f"file://{tmp_path}/missing/store", tmp_path / "one")
    assert not (tmp_path / "missing").exists()


def test_a_place_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "pipe_file", failing(PermissionError("Access Denied")))
    with pytest.raises(OSError, match=r"memory://x: Access Denied; see that .* may write"):
        copying_to("memory://x", tmp_path)


def test_a_store_that_does_not_answer_is_logged_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = fsspec.filesystem("memory")
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "pipe_file", failing(ConnectionError("no answer")))
        vault = copying_to("memory://later", tmp_path)
    assert "copies of checkpoints cannot be made at memory://later now: no answer" in caplog.text
    store = SessionStore(Limits(), Home(), vault)
    session = create(store)
    session.save_checkpoint(UNBOUNDED, "best")
    store.close(60.0)
    assert memory.glob(f"later/{session.session_id}/*.json")
    memory.rm("later", recursive=True)


def test_a_store_that_is_silent_is_not_waited_for_at_the_start_and_gets_copies_once_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory, answers = fsspec.filesystem("memory"), threading.Event()
    put = memory.pipe_file

    def silent(_: Any, *given: Any, **options: Any) -> None:
        assert answers.wait(SECONDS)
        put(*given, **options)

    monkeypatch.setattr(copies, "_TRIAL_SECONDS", 0.01)
    monkeypatch.setattr(type(memory), "pipe_file", silent)
    store = SessionStore(Limits(), Home(), copying_to("memory://silent", tmp_path))
    assert "memory://silent has not answered for 0.01 s" in caplog.text
    session = create(store)
    session.save_checkpoint(UNBOUNDED, "best")
    answers.set()
    store.close(60.0)
    assert [each.rpartition(".")[2] for each in memory.find("silent") if "manifest" in each] == ["json"]
    memory.rm("silent", recursive=True)


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_a_url_that_nothing_is_known_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="--checkpoint-url nonsense://x cannot be used"):
        FileVault(tmp_path, default=Durability.JOURNAL, limits=Limits(), checkpoint_url="nonsense://x")


@pytest.mark.parametrize("durability", [Durability.JOURNAL, Durability.FSYNC])
def test_what_was_restored_outlives_a_loss_of_power(tmp_path: Path, durability: Durability) -> None:
    url = f"file://{tmp_path}/store"
    with closing(toy.vault(tmp_path / "one", checkpoint_url=url)) as home:
        files = home.create("a", toy.spec(), durability)
        toy.append(files, 1, 2)
        toy.checkpoint(files, 1, 2)
        files.close()
    (tmp_path / "two").mkdir()
    disk = Disk(tmp_path / "two")
    with disk.recording(), closing(toy.vault(tmp_path / "two", checkpoint_url=url)) as home:
        assert home.names() == ["a"]
    (tmp_path / "left").mkdir()
    disk.left(disk.moment, tmp_path / "left", names=False, data=0.0)
    assert toy.history(toy.reopened(tmp_path / "left").recover()) == [1, 2]
