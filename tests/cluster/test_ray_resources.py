"""Workers get nodes by what they ask for, and what no node has is told."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.cluster.nodes import Nodes, running
from tests.cluster.ray_site import PREFIX, START_SECONDS, end, start, wait_for_workers
from tests.waiting import until

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")

MiB = 1 << 20


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A node without GPUs, and one with two."""
    with running(1) as found:
        found.add(num_cpus=2, num_gpus=2)
        yield found


def test_workers_that_ask_for_a_gpu_are_on_the_node_that_has_them_each_with_its_own(
    nodes: Nodes, tmp_path: Path
) -> None:
    process = start(nodes, tmp_path, 2, 2, flags=("--worker-gpus", "1"))
    try:
        wait_for_workers(process.wait_until_ready(START_SECONDS), 2)
        names = [f"{PREFIX}0", f"{PREFIX}1"]
        assert [nodes.on_head(name) for name in names] == [False, False]
        assert {nodes.variable(name, "CUDA_VISIBLE_DEVICES") for name in names} == {"0", "1"}
        end(process)
    finally:
        process.end()


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_a_gateway_says_so_when_jax_does_not_find_the_gpus_that_are_set_aside(nodes: Nodes, tmp_path: Path) -> None:
    process = start(nodes, tmp_path, 1, 1, flags=("--worker-gpus", "1", "--executor", "jax"))
    try:
        assert process.wait(START_SECONDS) == 1
        assert "leave --worker-gpus out" in "".join(process.errors)
    finally:
        process.end()
    assert nodes.actors() == []


def test_a_worker_that_asks_for_more_than_any_node_has_waits_which_is_told_to_the_autoscaler_too_and_comes_with_a_node(
    nodes: Nodes, tmp_path: Path
) -> None:
    process = start(nodes, tmp_path, 1, 1, flags=("--worker-memory", "1500MiB"))
    try:
        until(lambda: "no node has as much" in "".join(process.errors), START_SECONDS, 0.2)
        until(lambda: nodes.lacking() == [{"CPU": 1.0, "memory": 1_500.0 * MiB}], START_SECONDS, 0.2)
        nodes.add(memory=2_000 * MiB)
        wait_for_workers(process.wait_until_ready(START_SECONDS), 1)
        assert not nodes.on_head(f"{PREFIX}0")
        until(lambda: nodes.lacking() == [], START_SECONDS, 0.2)
        end(process)
    finally:
        process.end()


def test_a_gateway_that_ends_takes_back_what_no_node_has(nodes: Nodes, tmp_path: Path) -> None:
    process = start(nodes, tmp_path, 1, 1, flags=("--worker-gpus", "3"))
    try:
        until(lambda: "GPU 3: no node has as much" in "".join(process.errors), START_SECONDS, 0.2)
        end(process)
    finally:
        process.end()
    assert nodes.actors() == []
