"""The actors of a cluster by their names, as Ray and its dashboard have them. Needs the extra `ray`."""

import logging
from typing import Any

import ray

from backwire_server.cluster.placing import Policy, places
from backwire_server.cluster.worker import Worker
from backwire_server.config import Config

NAMESPACE = "backwire"
PREFIX = "backwire-worker-"
CONTROLLER = "backwire-controller"
THREADS = 8
"""How many calls of an actor are done at a time: those that tell, and those that move sessions."""

FOREVER = -1
"""How often Ray starts an actor again that has ended by itself."""


def connect(address: str) -> None:
    """Connects this process to a cluster, or starts one that is this machine, for `local`; raises OSError."""
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.WARNING,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise OSError(
            f"no Ray cluster can be used at {address}: {error}; start one with `ray start --head`, give this process "
            "the RAY_AUTH_ and RAY_TLS_ variables that it has, or say --ray local"
        ) from None


def workers() -> dict[str, Any]:
    """Returns the workers that the cluster has, by name, whether they serve or are being started."""
    named = ray.util.list_named_actors(all_namespaces=True)
    names = [each["name"] for each in named if each["namespace"] == NAMESPACE and each["name"].startswith(PREFIX)]
    return {name: found for name in sorted(names) if (found := _found(name)) is not None}


def start_worker(settings: Config, name: str) -> Any:
    """Has Ray start a worker on the node that has most room; it waits for room where there is none."""
    cluster = settings.cluster
    options = ray.remote(_told(settings, name)).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=FOREVER,
        max_concurrency=THREADS,
        scheduling_strategy="SPREAD",
        num_cpus=cluster.worker_cpus,
        num_gpus=cluster.worker_gpus,
        memory=cluster.worker_memory,
    )
    return options.remote()


def controller(settings: Config, policy: Policy) -> Any:
    """Returns the one that watches over the workers, which is started where there is none."""
    from backwire_server.cluster.controller import Controller

    options = ray.remote(Controller).options(
        name=CONTROLLER,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=FOREVER,
        max_task_retries=FOREVER,
        max_concurrency=THREADS,
        num_cpus=0,
    )
    return options.remote(settings, policy)


def room(settings: Config) -> int:
    """Returns for how many workers the nodes have cores, GPUs and memory, in use or not."""
    return places([node["Resources"] for node in ray.nodes() if node["Alive"]], asked(settings))


def asked(settings: Config) -> dict[str, int]:
    """Returns what a worker asks for, by Ray's names."""
    cluster = settings.cluster
    found = {"CPU": cluster.worker_cpus, "GPU": cluster.worker_gpus, "memory": cluster.worker_memory or 0}
    return {name: amount for name, amount in found.items() if amount}


def hosts() -> list[str]:
    """Returns the addresses of the nodes that live."""
    return [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]


def _told(settings: Config, name: str) -> type[Worker]:
    """Returns the class of a worker that knows its arguments: Ray imports numpy to read those of a call."""

    class Told(Worker):
        def __init__(self) -> None:
            super().__init__(settings, name)

    Told.__name__ = Told.__qualname__ = Worker.__name__
    return Told


def _found(name: str) -> Any:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:  # it ended meanwhile
        return None
