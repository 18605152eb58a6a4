"""A Ray cluster of several nodes on this machine, by Ray's own test tool, in a process of its own.

`python -m tests.cluster.nodes N` tells its address, and then answers each line of standard input, which is JSON, by one
of standard output; it ends with its input. Ray must not be in the process of the tests: it handles signals, and warns.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from tests.e2e.conftest import PACKAGES, ROOT

ATTEMPTS = 5
"""How often a node is tried to be started: Ray gives its agents 15 s for it, which a busy machine may take.

An actor is asked so often, too: on such a machine it may be taken for mute.
"""

RESOURCES = {"num_cpus": 1, "memory": 1 << 30}
"""What a node has: room for one worker."""

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # it would leave a token in the home directory
    "JAX_PLATFORMS": "cpu",  # the GPUs of these nodes are not there
    "RAY_enable_worker_prestart": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Nodes:
    """The cluster, as the tests have it.

    Attributes:
        address: Where it is joined.
    """

    def __init__(self, count: int) -> None:
        path = os.pathsep.join([str(ROOT), PACKAGES])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.nodes", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
        )
        self.address: str = self._told()

    def actors(self) -> list[str]:
        """Returns the names of all actors."""
        return sorted(self._ask("actors"))

    def kill(self, actor: str) -> float:
        """Kills the process of an actor; returns when, which is later than this was asked for: Ray must find it."""
        return float(self._ask("kill", actor))

    def pause(self, actor: str) -> float:
        """Has the process of an actor do nothing; returns when, as `kill`."""
        return float(self._ask("pause", actor))

    def resume(self, actor: str) -> None:
        """Has the process of an actor that was paused go on."""
        self._ask("resume", actor)

    def on_head(self, actor: str) -> bool:
        """Tells whether an actor is on the node that the cluster cannot do without."""
        return bool(self._ask("on_head", actor))

    def lose(self, actor: str) -> None:
        """Has all processes of the node end that an actor is on, which is not the head."""
        self._ask("lose", actor)

    def add(self, **resources: int) -> None:
        """Adds a node, with these resources instead of those of the others, by the names that Ray's tool has."""
        self._ask("add", resources)

    def lacking(self) -> list[dict[str, float]]:
        """Returns what is asked for and no node has free, each time by Ray's names: its autoscaler goes by that."""
        return list(self._ask("lacking"))

    def variable(self, actor: str, name: str) -> str:
        """Returns a variable of the environment of an actor."""
        return str(self._ask("variable", actor, name))

    def close(self) -> None:
        """Ends all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, *command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._told()

    def _told(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nodes have ended; see what they wrote to standard error"
        return json.loads(line)


@contextmanager
def running(count: int) -> Iterator[Nodes]:
    """Has a cluster of so many nodes, each with room for one worker."""
    nodes = Nodes(count)
    try:
        yield nodes
    finally:
        nodes.close()


class _Cluster:
    """The cluster, in its own process."""

    def __init__(self, count: int) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self._ray = ray
        self._tool: Any = Cluster()
        for number in range(count):
            self._add(include_dashboard=False if number == 0 else None)
        self.address: str = self._tool.address
        self._paused: dict[str, int] = {}
        ray.init(address=self.address, namespace="backwire", log_to_driver=False)

    def actors(self) -> list[str]:
        return [each["name"] for each in self._ray.util.list_named_actors(all_namespaces=True)]

    def kill(self, actor: str) -> float:
        pid, _ = self._place(actor)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return killed

    def pause(self, actor: str) -> float:
        self._paused[actor], _ = self._place(actor)
        paused = time.monotonic()
        os.kill(self._paused[actor], signal.SIGSTOP)
        return paused

    def resume(self, actor: str) -> None:
        os.kill(self._paused.pop(actor), signal.SIGCONT)

    def on_head(self, actor: str) -> bool:
        _, node_id = self._place(actor)
        return bool(node_id == self._tool.head_node.node_id)

    def lose(self, actor: str) -> None:
        pid, node_id = self._place(actor)
        (node,) = [each for each in self._tool.worker_nodes if each.node_id == node_id]
        self._tool.remove_node(node, allow_graceful=False)
        with contextlib.suppress(ProcessLookupError):  # else it goes on for a moment without its node
            os.kill(pid, signal.SIGKILL)

    def add(self, resources: dict[str, int]) -> None:
        self._add(**resources)

    def lacking(self) -> list[dict[str, float]]:
        sdk: Any = import_module("ray.autoscaler.v2.sdk")
        demands = sdk.get_cluster_status(self.address).resource_demands.ray_task_actor_demand
        return [dict(each.bundle) for demand in demands for each in demand.bundles_by_count for _ in range(each.count)]

    def variable(self, actor: str, name: str) -> str:
        found: str = self._within(actor, lambda _: os.environ[name])
        return found

    def close(self) -> None:
        self._ray.shutdown()
        self._tool.shutdown()

    def _place(self, actor: str) -> tuple[int, str]:
        """Returns the process of an actor and the node that it is on."""

        def where(_: Any) -> tuple[int, str]:
            import ray

            return os.getpid(), ray.get_runtime_context().get_node_id()

        found: tuple[int, str] = self._within(actor, where)
        return found

    def _within(self, actor: str, function: Callable[[Any], Any]) -> Any:
        for _ in range(ATTEMPTS):
            try:
                return self._ray.get(self._ray.get_actor(actor).__ray_call__.remote(function), timeout=60)
            except self._ray.exceptions.ActorUnavailableError:  # Ray starts it anew
                time.sleep(1)
        raise RuntimeError(f"{actor} does not come back")

    def _add(self, **options: Any) -> None:
        options = RESOURCES | options
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._tool.add_node(dashboard_agent_listen_port=0, **options)
                return
            except Exception as error:
                sys.stderr.write(f"attempt {attempt} of {ATTEMPTS} to start a node: {error}\n")
        raise RuntimeError("Ray could not start a node; give the machine less to do")


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray has to say is no answer
    cluster = _Cluster(int(sys.argv[1]))
    try:
        print(json.dumps(cluster.address), file=out, flush=True)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(cluster, name)(*arguments)), file=out, flush=True)
    finally:
        with contextlib.suppress(Exception):
            cluster.close()


if __name__ == "__main__":
    main()
