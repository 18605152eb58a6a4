"""Workers that Ray runs on three nodes, behind a gateway: whatever is lost, each change is made once."""

import re
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path

import pytest
from tests.cluster.nodes import Nodes, running
from tests.cluster.pair import batch, network
from tests.cluster.ray_site import (
    PREFIX,
    START_SECONDS,
    WORKERS,
    end,
    gateway,
    start,
    wait_for_workers,
)
from tests.cluster.ray_trainees import expected, owners, pressed, results, trainees, trains_on, wide
from tests.cluster.site import owner_in
from tests.ports import unused_port
from tests.trainees import batches, create
from tests.waiting import until

import backwire as bw

EXAMPLES = 1_000
"""So many that their parts are worth sending, which these workers judge by their times."""

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with running(WORKERS) as found:
        yield found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def target(nodes: Nodes, directory: Path) -> Iterator[str]:
    with gateway(nodes, directory) as (_, address):
        yield address


def test_a_gateway_whose_workers_cannot_start_says_why_and_leaves_none_behind(nodes: Nodes, tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.touch()
    process = start(nodes, file)
    try:
        assert process.wait(START_SECONDS) == 1
        assert f"the data directory {file} cannot be used" in "".join(process.errors)
    finally:
        process.end()
    assert nodes.actors() == []


def test_workers_compute_parts_for_each_other_which_the_metrics_of_a_gateway_tell_as_all_of_theirs(
    nodes: Nodes, tmp_path: Path
) -> None:
    metrics = f"127.0.0.1:{unused_port()}"
    peers = ("--peer-helpers", "2", "--max-helpers", "1")
    process = start(nodes, tmp_path, 2, 2, flags=("--metrics-listen", metrics, *peers))

    def told() -> str:
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    def computed_by_peers() -> float:
        return sum(map(float, re.findall(r'backwire_parts_total\{by="peer",.*\} (\S+)', told())))

    try:
        wait_for_workers(address := process.wait_until_ready(START_SECONDS), 2)
        for worker in (f"{PREFIX}0", f"{PREFIX}1"):
            assert f'backwire_sessions_awake{{worker="{worker}"}} 0.0' in told()
        assert "backwire_build_info{" in told()
        assert 'worker="gateway"' in told()
        with bw.connect(address) as client, bw.connect("embedded") as alone:
            parted, same = (
                each.create_session(network(), bw.Adam(0.001), seed=5, data_parallel=4) for each in (client, alone)
            )
            numbers = count()

            def helped() -> bool:
                return parted.train_step(batch(next(numbers), EXAMPLES)).step > 0 and computed_by_peers() > 0

            until(helped, START_SECONDS, 0.2)
            for number in range(parted.info().step):
                same.train_step(batch(number, EXAMPLES))
            assert parted.digest() == same.digest()
        end(process)
    finally:
        process.end()


def test_the_last_gateway_ends_its_workers_in_good_order_and_the_next_one_has_their_sessions(
    nodes: Nodes, tmp_path: Path
) -> None:
    data = list(islice(batches(50), 4))
    with gateway(nodes, tmp_path) as (process, address):
        with bw.connect(address) as client:
            session = create(client, 50)
            assert [session.train_step(batch).step for batch in data[:2]] == [1, 2]
        end(process)
    assert nodes.actors() == []
    assert owner_in(tmp_path, session.id) == ""
    with gateway(nodes, tmp_path) as (process, address):
        with bw.connect(address) as client:
            again = client.session(session.id)
            assert [again.train_step(batch).step for batch in data[2:]] == [3, 4]
        end(process)


def test_workers_come_with_the_load_and_get_sessions_and_go_with_it_to_the_bit(nodes: Nodes, tmp_path: Path) -> None:
    process = start(nodes, tmp_path, 1, 2, "tests.cluster.hasty")
    try:
        address = process.wait_until_ready(START_SECONDS)
        with bw.connect(address) as client:
            sessions = [wide(client, seed) for seed in range(2)]
            assert {owner_in(tmp_path, each.id) for each in sessions} == {f"{PREFIX}0"}
            with pressed(sessions):
                wait_for_workers(address, 2)
                until(lambda: len({owner_in(tmp_path, each.id) for each in sessions}) == 2, START_SECONDS, 0.2)
            told = [(each.info().step, each.digest()) for each in sessions]
            wait_for_workers(address, 1)
            assert [(each.info().step, each.digest()) for each in sessions] == told
            assert len({owner_in(tmp_path, each.id) for each in sessions}) == 1
        end(process)
    finally:
        process.end()
    assert nodes.actors() == []


def test_workers_are_actors_with_names_and_new_sessions_are_spread_over_them(
    nodes: Nodes, target: str, directory: Path
) -> None:
    names = [f"{PREFIX}{number}" for number in range(WORKERS)]
    assert nodes.actors() == ["backwire-controller", *names]
    with bw.connect(target) as client:
        sessions: list[bw.Session] = []

        def spread() -> bool:
            sessions.append(create(client, len(sessions)))
            return {owner_in(directory, each.id) for each in sessions} == {*names}

        until(spread, pause=0.2)  # one that has just started has more to do than the others, and gets none at first
        assert {each.id for each in sessions} <= {each.id for each in client.sessions()}


def test_sessions_go_on_to_the_bit_when_the_process_of_a_worker_is_killed_and_ray_starts_it_again(
    nodes: Nodes, target: str, directory: Path, undisturbed: bw.Client
) -> None:
    with trainees(target, 10) as trained:
        nodes.kill(owner_in(directory, trained[0].session.id))
        for each in trained:
            each.goes_on()
        wait_for_workers(target)
        for each in trained:
            each.goes_on()
        assert results(trained) == expected(trained, undisturbed)


def test_sessions_go_on_when_the_controller_is_killed_and_the_next_one_finds_the_workers(
    nodes: Nodes, target: str, directory: Path, undisturbed: bw.Client
) -> None:
    with trainees(target, 20) as trained:
        before = nodes.actors()
        nodes.kill("backwire-controller")
        for each in trained:
            each.goes_on()
        nodes.kill(owner_in(directory, trained[0].session.id))
        for each in trained:
            each.goes_on()
        wait_for_workers(target)
        assert nodes.actors() == before
        assert results(trained) == expected(trained, undisturbed)


def test_workers_go_on_when_one_of_two_gateways_ends(nodes: Nodes, target: str, directory: Path) -> None:
    with gateway(nodes, directory) as (other, address):
        with bw.connect(target) as client, bw.connect(address) as second:
            session = create(client, 30)
            assert second.session(session.id).train_step(next(batches(30))).step == 1
        end(other)
    wait_for_workers(target)
    with bw.connect(target) as client:
        assert client.session(session.id).train_step(next(batches(30))).step == 2


def test_a_gateway_with_other_settings_than_the_workers_have_is_refused(
    nodes: Nodes, target: str, tmp_path: Path
) -> None:
    process = start(nodes, tmp_path)
    try:
        assert process.wait(START_SECONDS) == 1
        assert "other settings" in "".join(process.errors)
    finally:
        process.end()
    wait_for_workers(target)


def test_sessions_go_on_to_the_bit_when_a_node_is_lost_and_its_worker_gets_a_new_one(
    nodes: Nodes, target: str, directory: Path, undisturbed: bw.Client
) -> None:
    with trainees(target, 40) as trained:
        victim = next(name for number in range(WORKERS) if not nodes.on_head(name := f"{PREFIX}{number}"))
        for each in trained:
            each.goes_on()
        until(lambda: trains_on(trained[0], victim, directory), START_SECONDS)
        nodes.lose(victim)
        for each in trained:
            each.goes_on()
        assert victim not in owners(trained, directory)
        nodes.add()
        wait_for_workers(target)
        for each in trained:
            each.goes_on()
        assert results(trained) == expected(trained, undisturbed)
