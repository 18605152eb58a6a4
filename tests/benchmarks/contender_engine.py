"""Backwire's engine, optimizer and session in this process: what the service does, without the service."""

import os
from typing import Any

from backwire_server import machine

machine.prepare(machine.Tuning(), os.environ)  # before numpy is imported, as the server does

import numpy as np  # noqa: E402
from tests.benchmarks import backwire_models, engine_profile, values  # noqa: E402

import backwire as bw  # noqa: E402
from backwire_api.v1 import gradient_service_pb2 as pb  # noqa: E402
from backwire_server.messages.executors import executor_to_proto  # noqa: E402
from backwire_server.messages.precisions import precision_to_proto  # noqa: E402
from backwire_server.messages.session import session_spec  # noqa: E402
from backwire_server.sessions.calls import BackwardCall, ForwardCall, TrainCall  # noqa: E402
from backwire_server.sessions.executors import Executor  # noqa: E402
from backwire_server.sessions.limits import Limits  # noqa: E402
from backwire_server.sessions.scope import UNBOUNDED  # noqa: E402
from backwire_server.sessions.session import Session  # noqa: E402
from backwire_server.sessions.store.store import SessionStore  # noqa: E402

PROFILED_OPERATORS = 40


class Contender:
    """Training steps as calls of a session, by the executor that the variant names, as in jax, jax/bfloat16."""

    def __init__(self, variant: str) -> None:
        executor, _, self._precision = variant.partition("/")
        self._executor = Executor(executor or "numpy")
        self._limits = Limits()
        self._store = SessionStore(self._limits)

    def setup(self, model: str) -> dict[str, Any]:
        """As in the protocol."""
        self._inputs = values.batch(model)
        self._session = self._new_session(model)
        first = self._session.forward(UNBOUNDED, ForwardCall(self._inputs))
        self._session.backward(UNBOUNDED, BackwardCall(first.forward_id))
        with self._session.gradients(UNBOUNDED) as gradients:
            prints = values.fingerprint(dict(gradients))
        self._session.zero_gradients(UNBOUNDED)
        return {"loss": first.loss, "gradients": prints}

    def run(self, steps: int) -> None:
        """As in the protocol."""
        call = TrainCall(self._inputs)
        for _ in range(steps):
            self._session.train_step(UNBOUNDED, call)

    def operators(self, steps: int) -> list[dict[str, Any]]:
        """Returns the operators that take most of a step."""
        return engine_profile.profile(self.run, steps, most=PROFILED_OPERATORS)

    def _new_session(self, model: str) -> Session:
        optimizer = bw.Adam(values.LEARNING_RATE).to_proto()
        request = pb.CreateSessionRequest(graph=backwire_models.graph(model).proto, optimizer=optimizer)
        request.executor = executor_to_proto(self._executor)
        if self._precision:
            request.precision = precision_to_proto(np.dtype(self._precision))
        spec = session_spec(request, self._limits)
        session = self._store.get(self._store.create(UNBOUNDED, spec).session_id)
        first = {
            item.name: values.parameter(item.name, tuple(map(int, item.type.shape)))
            for item in session.info().parameters
            if not item.frozen
        }
        session.set_parameters(UNBOUNDED, first)
        return session
