"""Replicas over one directory whose network is split: each change is made once, whoever can reach whom."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cluster.network import Network
from tests.cluster.site import owner_in, warm
from tests.trainees import WAYS, Replica, Trainee, create

import backwire as bw

NAMES = ("a", "b")
LEASE_SECONDS = 3.0
"""So long that no replica is silent for it which only waits for a processor."""


@pytest.fixture
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            made = stack.enter_context(Network(*NAMES))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield made


@pytest.fixture
def replicas(network: Network, tmp_path: Path) -> Iterator[dict[str, Replica]]:
    """One on each machine, over a directory that both have."""
    flags = ("--shared", "--lease", f"{LEASE_SECONDS}s", "--allow-plaintext")
    with ExitStack() as stack:
        found = {}
        for name in NAMES:
            listen, within = f"{network.address(name)}:0", network.within(name)
            replica = Replica(tmp_path, "--replica", name, *flags, listen=listen, within=within)
            found[name] = stack.enter_context(replica)
            warm(replica)
        yield found


@pytest.fixture
def trainees(replicas: dict[str, Replica]) -> Iterator[list[Trainee]]:
    """Sessions of `a` that are trained by a client of `b`."""
    with ExitStack() as stack:
        client, other = (stack.enter_context(bw.connect(replicas[name].address)) for name in NAMES)
        ids = [create(client, seed).id for seed, _ in enumerate(WAYS)]
        made = [Trainee(other.session(each), way, seed) for seed, (each, way) in enumerate(zip(ids, WAYS, strict=True))]
        for each in made:
            stack.enter_context(each)
        for each in made:
            each.goes_on()
        yield made


def test_sessions_of_a_replica_that_is_cut_off_wait_for_it_and_go_on_to_the_bit(
    network: Network, trainees: list[Trainee], tmp_path: Path, undisturbed: bw.Client
) -> None:
    network.cut("a")
    time.sleep(1.0)
    stopped = [each.steps for each in trainees]
    time.sleep(LEASE_SECONDS)
    assert [each.steps for each in trainees] == stopped
    assert {owner_in(tmp_path, each.session.id) for each in trainees} == {"a"}, "it lives, and so nobody took them over"
    network.mend("a")
    for each in trainees:
        each.goes_on()
    results = [each.result() for each in trainees]
    assert results == [each.expected(undisturbed) for each in trainees]


def test_sessions_of_a_replica_that_dies_cut_off_go_on_with_the_other_to_the_bit(
    network: Network,
    replicas: dict[str, Replica],
    trainees: list[Trainee],
    tmp_path: Path,
    undisturbed: bw.Client,
) -> None:
    network.cut("a")
    replicas["a"].kill()
    for each in trainees:
        each.goes_on()
    assert {owner_in(tmp_path, each.session.id) for each in trainees} == {"b"}
    network.mend("a")
    replicas["a"].start()
    for each in trainees:
        each.goes_on()
    results = [each.result() for each in trainees]
    assert results == [each.expected(undisturbed) for each in trainees]
