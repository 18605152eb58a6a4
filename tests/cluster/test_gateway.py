"""A gateway leads to workers, whichever they are, and knows of them what it is told."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.access.conftest import Authority, entry, new_token, write
from tests.cluster.site import owner_in, unfollowing, warm
from tests.rpc.conftest import Api, Conversation, Refusal
from tests.trainees import WAYS, Replica, Trainee, batches, create, graph, pipelined
from tests.waiting import until

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.cluster.gateway import Gateway
from backwire_server.cluster.load import Load
from backwire_server.config import Config
from backwire_server.config_parts import Access, Capacity, Keeping
from backwire_server.rpc.server import Server
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import Limits

NAMES = ("a", "b")
PLAIN = Config(listen="127.0.0.1:0")


class Door:
    """A gateway in a thread of its own."""

    def __init__(self, settings: Config = PLAIN) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._gateway = self._done(self._open)
        self.address = self._gateway.address

    def tell(self, *loads: Load) -> None:
        async def update() -> None:
            self._gateway.update(loads)

        self._done(update)

    @property
    def draining(self) -> bool:
        draining: bool = self._gateway._admission._draining
        return draining

    def close(self) -> bool:
        drained: bool = self._done(lambda: self._gateway.stop(10.0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        return drained

    async def _open(self) -> Gateway:
        gateway = Gateway(self._settings)
        await gateway.open()
        return gateway

    def _done(self, make: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(60)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def replicas(directory: Path) -> Iterator[dict[str, Replica]]:
    with ExitStack() as stack:
        found = {}
        for name in NAMES:
            found[name] = stack.enter_context(Replica(directory, "--workers", "1", "--shared", "--replica", name))
            warm(found[name])
        yield found


@pytest.fixture
def loads(replicas: dict[str, Replica]) -> dict[str, Load]:
    return {name: Load(name, replica.address, most_bytes=1_000) for name, replica in replicas.items()}


@pytest.fixture
def door(loads: dict[str, Load]) -> Iterator[Door]:
    made = Door()
    try:
        made.tell(*loads.values())
        yield made
    finally:
        made.close()


def test_new_sessions_go_to_the_worker_that_is_least_full_and_else_to_each_in_turn(
    door: Door, loads: dict[str, Load], directory: Path
) -> None:
    with bw.connect(door.address) as client:
        owners = [owner_in(directory, create(client, seed).id) for seed in range(4)]
        assert sorted(owners) == ["a", "a", "b", "b"]
        door.tell(replace(loads["a"], busy=0.8), loads["b"])
        assert {owner_in(directory, create(client, seed).id) for seed in range(4)} == {"b"}
        door.tell(loads["a"], replace(loads["b"], nbytes=900))
        assert {owner_in(directory, create(client, seed).id) for seed in range(4)} == {"a"}


@pytest.mark.parametrize("connect", [bw.connect, unfollowing])
def test_sessions_are_trained_through_a_gateway_to_the_bit(
    door: Door, undisturbed: bw.Client, connect: Callable[[str], bw.Client]
) -> None:
    with connect(door.address) as client, ExitStack() as stack:
        trained = [
            stack.enter_context(Trainee(create(client, seed), way, seed)) for seed, way in enumerate(WAYS * 2, 60)
        ]
        for each in trained:
            each.goes_on()
        assert [each.result() for each in trained] == [each.expected(undisturbed) for each in trained]


def test_a_file_makes_a_session_and_a_creation_that_is_repeated_makes_one(door: Door, tmp_path: Path) -> None:
    with bw.connect(door.address) as client:
        session = create(client, 70)
        assert [each.step for each in pipelined(session, islice(batches(70), 3))] == [1, 2, 3]
        session.save(tmp_path / "session.backwire")
        assert client.load(tmp_path / "session.backwire").digest() == session.digest()
        made = {client.create_session(graph(), request_id="the same each time").id for _ in NAMES}
        assert len(made) == 1


def test_the_status_is_that_of_all_workers_and_has_each_session_once(door: Door, directory: Path) -> None:
    with bw.connect(door.address) as client:
        sessions = [create(client, seed) for seed in range(80, 82)]
        assert {owner_in(directory, each.id) for each in sessions} == set(NAMES)
        status = client.status(max_sessions=1_000)
        ids = [each.id for each in status.sessions]
        assert status.workers == len(NAMES)
        assert len(ids) == len(set(ids))
        assert {each.id for each in sessions} <= set(ids)


def test_calls_wait_where_no_worker_is_told_and_go_on_when_one_is(door: Door, loads: dict[str, Load]) -> None:
    door.tell()
    with bw.connect(door.address) as client:
        threading.Timer(0.5, lambda: door.tell(loads["b"])).start()
        assert create(client, 90).train_step(next(batches(90))).step == 1


def test_sessions_go_on_with_another_worker_when_theirs_ends_before_the_gateway_is_told(
    door: Door, replicas: dict[str, Replica], directory: Path, undisturbed: bw.Client
) -> None:
    with unfollowing(door.address) as client, ExitStack() as stack:
        trained = [stack.enter_context(Trainee(create(client, seed), "calls", seed)) for seed in (91, 92)]
        for each in trained:
            each.goes_on()
        replicas["a"].kill()
        for each in trained:
            each.goes_on()
        assert {owner_in(directory, each.session.id) for each in trained} == {"b"}
        replicas["a"].start()
        assert [each.result() for each in trained] == [each.expected(undisturbed) for each in trained]


def test_a_gateway_that_encrypts_calls_workers_that_do_and_ask_for_certificates_and_they_know_who_calls(
    tmp_path: Path,
) -> None:
    authority, token = Authority("ours"), new_token()
    pair = authority.issue("workers", host="localhost")
    certificate, key, ca = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt"
    for path, content in zip((certificate, key, ca), (pair.certificate, pair.key, authority.certificate), strict=True):
        path.write_bytes(content)
        path.chmod(0o600)
    tokens, data = write(tmp_path / "tokens.toml", [entry(token)]), tmp_path / "data"
    access = Access(str(certificate), str(key), client_ca=str(ca), peer_ca=str(ca), tokens=str(tokens))
    settings = Config(
        listen="localhost:0", replica="door", access=access, keeping=Keeping(data_dir=str(data), shared=True)
    )
    paths = {"tls-certificate": certificate, "tls-key": key, "client-ca": ca, "tokens": tokens}
    flags = [f"--{name}={path}" for name, path in paths.items()]
    tls = bw.TLS(root_certificates=authority.certificate, private_key=pair.key, certificate_chain=pair.certificate)
    with Replica(data, "--workers", "1", "--shared", "--replica", "a", *flags, listen="localhost:0") as replica:
        door = Door(settings)
        door.tell(Load("a", replica.address))
        with bw.connect(door.address, tls=tls, token=token) as client:
            session = create(client, 1)
            assert session.train_step(next(batches(1))).step == 1
            assert session.id.endswith(".acme")
        with bw.connect(door.address, tls=tls) as nobody, pytest.raises(bw.AuthenticationError, match="token"):
            nobody.ops()
        assert door.close()


def test_a_gateway_that_ends_has_pipelines_answered_what_was_sent_and_tells_their_clients(tmp_path: Path) -> None:
    keeping = Keeping(data_dir=str(tmp_path), shared=True)
    server = Server("127.0.0.1:0", Limits(), Capacity(), Home(replica="a"), keeping)
    door = Door()
    door.tell(Load("a", server.address))
    api = Api(server, grpc.insecure_channel(door.address))
    train = pb.TrainStepRequest(session_id=api.create(), inputs={"x": tensors.encode(np.ones(3))})
    stream = Conversation(api)
    stream.send(train_step=train)
    assert stream.answer().train_step.result.step == 1
    turn = server.store.get(train.session_id)._turn
    assert turn.try_acquire()
    stream.send(train_step=train)
    until(lambda: turn._waiting)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(door.close)
        until(lambda: door.draining)
        turn.release()
        assert stream.answer().train_step.result.step == 2
        with pytest.raises(grpc.RpcError) as told:
            stream.answer()
        assert Refusal(told.value).reason == "SHUTTING_DOWN"
        assert ended.result(60), "it need not be broken off"
    stream.close()
    api.channel.close()
    server.stop(5.0)
