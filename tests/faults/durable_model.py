"""What durable sessions must be like, as plain arithmetic: a session's model, and what is kept of it."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.graphs import dot_graph
from tests.sessions.test_state_machine import Model

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, optimizer_pb2, tensor_pb2
from backwire_server.messages.session import session_spec
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec

RATE = 0.5
"""That of `tests.sessions.test_state_machine`."""

W, C = np.array([1.0, 2.0]), np.array([10.0, 20.0])


@dataclass
class Kept:
    """A session as it must be: its state, and what the disk has of it.

    Attributes:
        session_id: The session.
        model: The state.
        lease: The number of the lease that is needed to write; 0 for none.
        leases: How many there were.
        saved: The states that were saved by name.
        steps: The state right after each step that can be gone back to, if it is still kept.
        names: The passes that there ever were.
        last: The last mutation, which can be sent again, and its answer.
    """

    session_id: str
    model: Model
    lease: int = 0
    leases: int = 0
    saved: dict[str, Model] = field(default_factory=dict)
    steps: dict[int, Model] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    last: tuple[Any, Any] | None = None

    def stepped(self) -> None:
        """Notes the state after a step."""
        self.steps[self.model.step] = deepcopy(self.model)

    def go_back(self, model: Model) -> None:
        """Is what it was; passes expire, and no step before can be gone back to."""
        self.model = deepcopy(model)
        self.model.passes.clear()
        self.steps.clear()

    def branch(self, session_id: str) -> "Kept":
        """Returns a branch: with the same state and steps, and without passes, requests, lease and what was saved."""
        model = deepcopy(self.model)
        model.passes.clear()
        return Kept(session_id, model, steps=dict(self.steps), names=list(self.names))


def new_model() -> Model:
    """Returns the state of a session that begins."""
    return Model(W, C)


def spec() -> SessionSpec:
    """Returns what sessions are made from: the graph of `tests.graphs` with vectors of two."""
    x = graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[graph_pb2.Dimension(size=2)])
    parameters = [
        graph_pb2.Parameter(name="w", value=tensors.encode(W)),
        graph_pb2.Parameter(name="c", value=tensors.encode(C), frozen=True),
    ]
    optimizer = optimizer_pb2.Optimizer(learning_rate=RATE, sgd=optimizer_pb2.Sgd())
    request = pb.CreateSessionRequest(graph=dot_graph(inputs=[x], parameters=parameters), optimizer=optimizer)
    return session_spec(request, Limits())


def same(one: Any, other: Any) -> bool:
    """Tells whether two answers say the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)
    return bool(one == other)


Array = NDArray[Any]
