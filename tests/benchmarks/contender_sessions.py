"""Many sessions of one model in this process, each trained by a thread of its own; a step is one of each of them."""

import threading
from typing import Any

from tests.benchmarks import contender_engine, values

from backwire_server import machine
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.store.store import SessionStore
from backwire_server.sessions.turns.processors import Processors

COUNT = 64
TOGETHER = "together"
WARM_UP_STEPS = 8  # so that groups of all sizes are compiled


class Contender(contender_engine.Contender):
    """Sessions by the executor that the variant names, or by JAX in groups."""

    def __init__(self, variant: str) -> None:
        super().__init__(Executor.JAX.value if variant == TOGETHER else variant)
        processors = Processors(machine.usable_cores())
        self._store = SessionStore(Limits(), processors=processors, grouped=variant == TOGETHER)
        self._sessions: list[Session] = []

    def setup(self, model: str) -> dict[str, Any]:
        """As in the protocol."""
        for session in self._sessions:
            self._store.delete(UNBOUNDED, session.session_id)
        found = super().setup(model)
        self._call = TrainCall(values.batch(model))
        self._sessions = [self._session, *(self._new_session(model) for _ in range(COUNT - 1))]
        self.run(WARM_UP_STEPS)
        return found

    def run(self, steps: int) -> None:
        """As in the protocol."""
        threads = [threading.Thread(target=self._train, args=(session, steps)) for session in self._sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _train(self, session: Session, steps: int) -> None:
        for _ in range(steps):
            session.train_step(UNBOUNDED, self._call)
