"""Training through the SDK on a server of its own, over TCP on this machine."""

import itertools
from typing import Any, Literal

from tests.benchmarks import backwire_models, values
from tests.benchmarks.server_process import backwire_server

import backwire as bw

Durability = Literal["memory", "journal", "fsync"]


class Contender:
    """Training steps as remote calls; the variant says which: `train-step`, `three-calls` or `pipeline`."""

    def __init__(self, variant: str) -> None:
        self._server = backwire_server()
        self._client = bw.connect(self._server.address, timeout=600)
        self._session: bw.Session | None = None
        self.run = {
            "train-step": self._train_steps,
            "three-calls": self._three_calls,
            "pipeline": self._pipeline,
        }[variant]

    def setup(self, model: str) -> dict[str, Any]:
        """As in the protocol."""
        if self._session is not None:
            self._session.close()
        self._batch = values.batch(model)
        self._session = session = new_session(self._client, model)
        forward = session.forward(self._batch)
        forward.backward()
        prints = values.fingerprint(session.gradients())
        session.zero_gradients()
        return {"loss": forward.loss, "gradients": prints}

    def _train_steps(self, steps: int) -> None:
        assert self._session is not None
        for _ in range(steps):
            self._session.train_step(self._batch)

    def _three_calls(self, steps: int) -> None:
        assert self._session is not None
        for _ in range(steps):
            self._session.forward(self._batch).backward()
            self._session.step()

    def _pipeline(self, steps: int) -> None:
        assert self._session is not None
        for _ in self._session.train_steps(itertools.repeat(self._batch, steps)):
            pass


def new_session(client: bw.Client, model: str, durability: Durability | None = None) -> bw.Session:
    """Returns a session of a model with the values that every implementation begins with."""
    optimizer = bw.Adam(values.LEARNING_RATE)
    session = client.create_session(backwire_models.graph(model), optimizer, durability=durability)
    shapes = {item.name: item.shape for item in session.info().parameters if not item.frozen}
    session.set_parameters({name: values.parameter(name, shape) for name, shape in shapes.items()})
    return session
