"""Any replica serves any session over one directory, and whatever becomes of the others, each change is made once."""

import asyncio
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice

import pytest
from tests.cluster.site import LEASE_SECONDS, Site, unfollowing
from tests.trainees import PATIENCE, WAYS, Trainee, batches, create, graph, pipelined
from tests.waiting import until

import backwire as bw
from backwire._wire import _channel

ROUNDS = 3
SEED = 8


@pytest.fixture
def without_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has no connection of a client be taken for broken because nothing is heard on it."""
    hour = 3_600_000
    silent = [(key, hour if re.search("keepalive|ping", key) else value) for key, value in _channel._OPTIONS]
    monkeypatch.setattr(_channel, "_OPTIONS", silent)


def test_a_session_is_served_whichever_replica_is_asked_and_is_listed_by_all(site: Site) -> None:
    with bw.connect(site.replicas["b"].address) as client:
        session = create(client, 1)
        session.train_step(next(batches(1)))
    assert site.owner(session.id) == "b"
    for replica in site.replicas.values():
        with bw.connect(replica.address) as client:
            assert session.id in [each.id for each in client.sessions()]
            assert client.session(session.id).info().step == 1
    assert site.owner(session.id) == "b"


def test_a_client_that_does_not_follow_is_served_whichever_replica_it_asks(site: Site) -> None:
    with bw.connect(site.replicas["b"].address) as client:
        session = create(client, 4)
    data = list(islice(batches(4), 3))
    for step, (name, batch) in enumerate(zip(site.replicas, data, strict=True), 1):
        with unfollowing(site.replicas[name].address) as client:
            assert client.session(session.id).train_step(batch).step == step
    with unfollowing(site.target) as client:
        steps = [result.step for result in pipelined(client.session(session.id), data)]
        assert steps == [4, 5, 6]
    assert site.owner(session.id) == "b"


def test_a_client_that_awaits_is_served_whichever_replica_it_asks_and_goes_on_when_the_owner_ends(site: Site) -> None:
    data = list(islice(batches(5), 6))

    async def train(session_id: str) -> list[int]:
        async with bw.aio.connect(site.replicas["b"].address) as client:
            session = await client.session(session_id)
            steps = [(await session.train_step(batch)).step for batch in data[:2]]
            await asyncio.to_thread(site.replicas["a"].upgrade)
            async with session.pipeline() as pipe:
                futures = [await pipe.train_step(batch) for batch in data[2:]]
            return steps + [(await future).step for future in futures]

    with bw.connect(site.replicas["a"].address) as client:
        session = create(client, 5)
    assert asyncio.run(train(session.id)) == [1, 2, 3, 4, 5, 6]


def test_a_creation_that_is_repeated_to_each_replica_makes_one_session(site: Site) -> None:
    made = []
    for replica in site.replicas.values():
        with bw.connect(replica.address) as client:
            session = client.create_session(graph(), optimizer=bw.Adam(0.01), request_id="the one that all repeat")
            made.append(session.id)
    assert len(set(made)) == 1


def test_a_session_of_a_replica_that_ended_in_good_order_goes_on_with_another(site: Site) -> None:
    with bw.connect(site.replicas["a"].address) as client, bw.connect(site.replicas["b"].address) as other:
        session = create(client, 2)
        session.train_step(next(batches(2)))
        digest = session.digest()
        site.replicas["a"].upgrade()
        assert site.owner(session.id) == ""
        assert other.session(session.id).digest() == digest
        assert site.owner(session.id) == "b"
        assert client.session(session.id).train_step(next(batches(2))).step == 2
        client.session(session.id).close()
        assert session.id not in [each.id for each in other.sessions()]


def test_an_owner_that_was_paused_beyond_its_lease_changes_nothing_when_it_goes_on(
    site: Site, undisturbed: bw.Client
) -> None:
    data = list(islice(batches(3), 7))
    with ExitStack() as stack:
        client = stack.enter_context(bw.connect(site.replicas["a"].address))
        other = stack.enter_context(bw.connect(site.replicas["b"].address))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        session = create(client, 3)
        steps = [session.train_step(batch).step for batch in data[:5]]
        site.replicas["a"].pause()
        late = pool.submit(session.train_step, data[6])
        try:
            steps.append(other.session(session.id).train_step(data[5]).step)
        finally:
            site.replicas["a"].resume()
        steps.append(late.result(PATIENCE).step)
        assert steps == [1, 2, 3, 4, 5, 6, 7]
        assert site.owner(session.id) == "b"
        expected = create(undisturbed, 3)
        for _ in pipelined(expected, data):
            pass
        assert session.digest() == other.session(session.id).digest() == expected.digest()


@pytest.mark.usefixtures("without_pings")
def test_clients_of_an_owner_that_says_nothing_go_on_with_another_before_it_does(
    site: Site, undisturbed: bw.Client
) -> None:
    with ExitStack() as stack:
        owner = stack.enter_context(bw.connect(site.replicas["a"].address))
        clients = [stack.enter_context(connect(site.replicas["b"].address)) for connect in (bw.connect, unfollowing)]
        trainees = [
            stack.enter_context(Trainee(clients[seed // 2 % 2].session(create(owner, seed).id), way, seed))
            for seed, way in enumerate(WAYS * 2, 30)
        ]
        for each in trainees:
            each.goes_on()
        site.replicas["a"].pause()
        try:
            for each in trainees:
                each.goes_on()
        finally:
            site.replicas["a"].resume()
        results = [each.result() for each in trainees]
    assert results == [each.expected(undisturbed) for each in trainees]


@pytest.mark.usefixtures("without_pings")
def test_a_client_that_awaits_goes_on_when_the_owner_says_nothing_by_calls_and_by_a_pipeline(site: Site) -> None:
    data = list(islice(batches(6), 2))

    async def train(ids: Sequence[str]) -> list[list[int]]:
        async with bw.aio.connect(site.replicas["b"].address) as client:
            one, two = [await client.session(each) for each in ids]
            async with two.pipeline() as pipe:
                steps = [[(await one.train_step(data[0])).step], [(await (await pipe.train_step(data[0]))).step]]
                site.replicas["a"].pause()
                try:
                    future = await pipe.train_step(data[1])
                    steps[0].append((await one.train_step(data[1])).step)
                    steps[1].append((await future).step)
                finally:
                    site.replicas["a"].resume()
        return steps

    with bw.connect(site.replicas["a"].address) as client:
        ids = [create(client, 6).id for _ in range(2)]
    assert asyncio.run(train(ids)) == [[1, 2], [1, 2]]
    assert {site.owner(each) for each in ids} == {"b"}


def test_sessions_that_move_while_they_train_go_on_to_the_bit(site: Site, undisturbed: bw.Client) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(bw.connect(site.target))
        mover = stack.enter_context(unfollowing(site.target))
        trainees = [stack.enter_context(Trainee(create(client, seed), way, seed)) for seed, way in enumerate(WAYS, 20)]

        def moves(trainee: Trainee, name: str) -> bool:
            mover.session(trainee.session.id).move(name)
            return site.owner(trainee.session.id) == name

        for name in (*site.replicas, *site.replicas):
            for each in trainees:
                each.goes_on()
                until(partial(moves, each, name))  # from one that stalls then, another takes it at once
        for each in trainees:
            each.goes_on()
        results = [each.result() for each in trainees]
    assert results == [each.expected(undisturbed) for each in trainees]


def test_a_session_moves_to_a_replica_that_stalls_once_that_goes_on(site: Site) -> None:
    with bw.connect(site.replicas["b"].address) as client:
        session = create(client, 7)
        site.replicas["a"].pause()
        time.sleep(2 * LEASE_SECONDS)
        waking = threading.Timer(0.5, site.replicas["a"].resume)
        waking.start()
        session.move("a")
        waking.join()
        assert site.owner(session.id) == "a"
        assert session.train_step(next(batches(7))).step == 1


def test_sessions_go_on_to_the_bit_while_replicas_are_killed_at_random(site: Site, undisturbed: bw.Client) -> None:
    draw = random.Random(SEED)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(site.target)) for connect in (bw.connect, unfollowing)]
        trainees = [
            stack.enter_context(Trainee(create(clients[seed // 2 % 2], seed), way, seed))
            for seed, way in enumerate(WAYS * 2, 10)
        ]
        for _ in range(ROUNDS):
            for each in trainees:
                each.goes_on()
            victim = site.replicas[site.owner(draw.choice(trainees).session.id)]
            victim.kill()
            for each in trainees:
                each.goes_on()
            victim.start()
        results = [each.result() for each in trainees]
    assert results == [each.expected(undisturbed) for each in trainees]
