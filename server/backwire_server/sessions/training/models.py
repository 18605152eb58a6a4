"""Models for sessions: those of equal graphs have in common what follows from the graph alone."""

import threading
from collections import OrderedDict
from weakref import WeakValueDictionary

from backwire_server.engine.fingerprint import Fingerprint, element_bytes, fingerprint
from backwire_server.engine.graph import Graph
from backwire_server.engine.model import Model
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.sessions.executors import Executor, model_on

KEPT_GRAPHS = 64
KEPT_BYTES = 64 << 20
"""What is kept of graphs that no session in memory has, for those that wake up; a hostile client gains no more."""

KEPT_COMPILED = 256
"""How many functions of JAX the graphs that are kept so may have together, but for the last: megabytes of code each."""


class Models:
    """Makes models that share the check of their graph, and its plans. For any number of threads at once.

    What models share lives as long as one of them; that of the last `kept_graphs` lives on, up to `kept_bytes` and
    `kept_compiled` functions in all.
    """

    def __init__(
        self, kept_graphs: int = KEPT_GRAPHS, kept_bytes: int = KEPT_BYTES, kept_compiled: int = KEPT_COMPILED
    ) -> None:
        self._kept_graphs = kept_graphs
        self._kept_bytes = kept_bytes
        self._kept_compiled = kept_compiled
        self._mutex = threading.Lock()
        self._used: WeakValueDictionary[bytes, PlanCache] = WeakValueDictionary()
        self._kept: OrderedDict[Fingerprint, PlanCache] = OrderedDict()

    def model(self, graph: Graph, stop: Stop = NEVER, executor: Executor = Executor.NUMPY) -> Model:
        """Returns a new model of a graph, which must not change, that computes by the executor.

        Raises EngineError for a graph that is wrong, ExecutorUnavailable. `stop` ends the check of a graph that was not
        seen before.
        """
        return model_on(executor, self._plans(graph, stop))

    def _plans(self, graph: Graph, stop: Stop) -> PlanCache:
        if element_bytes(graph) > self._kept_bytes:
            return PlanCache(graph, stop)
        key = fingerprint(graph)
        with self._mutex:
            shared = self._used.get(key.digest)
        if shared is None:
            made = PlanCache(graph, stop)  # others need not wait for it; who comes second takes the first
            with self._mutex:
                shared = self._used.setdefault(key.digest, made)
        self._keep(key, shared)
        return shared

    def _keep(self, key: Fingerprint, shared: PlanCache) -> None:
        with self._mutex:
            self._kept[key] = shared
            self._kept.move_to_end(key)
            sizes = {each: each.nbytes + plans.nbytes for each, plans in self._kept.items()}
            for each in [each for each, nbytes in sizes.items() if nbytes > self._kept_bytes]:
                del self._kept[each], sizes[each]  # so that no other has to go for it
            while len(self._kept) > self._kept_graphs or sum(sizes.values()) > self._kept_bytes:
                del sizes[self._kept.popitem(last=False)[0]]
            compiled = sum(plans.compiled for plans in self._kept.values())
            while compiled > self._kept_compiled and len(self._kept) > 1:
                compiled -= self._kept.popitem(last=False)[1].compiled


_MODELS = Models()


def model_of(graph: Graph, stop: Stop = NEVER, executor: Executor = Executor.NUMPY) -> Model:
    """Returns a new model of a graph from the Models of this process; see `Models.model`."""
    return _MODELS.model(graph, stop, executor)
