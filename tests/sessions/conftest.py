"""Sessions whose numbers are exact, so that tests can compare bits."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sessions.asking import SECONDS

from backwire_server import optim
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.parallel import crew
from backwire_server.parallel.crew import Crew
from backwire_server.sessions.errors import Cancelled, DeadlineExceeded
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED, Unbounded
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.store.store import SessionStore
from backwire_server.sessions.turns import processors

if TYPE_CHECKING:
    from tests.sessions.grouped import Gate

Array = NDArray[Any]
MakeSession = Callable[..., Session]

START = np.array([1.0, 2.0, 3.0])


class Scope(Unbounded):
    """A call that a test can end: at once, or when it is checked for the n-th time."""

    def __init__(self, *, checks: int | None = None, seconds: float | None = None) -> None:
        super().__init__()
        self.cancelled = threading.Event()
        self._checks = checks
        self._seconds = seconds

    def check(self) -> None:
        if self._checks is not None:
            self._checks -= 1
        if self._seconds == 0:
            raise DeadlineExceeded("time is up")
        if self.cancelled.is_set() or (self._checks is not None and self._checks < 0):
            raise Cancelled("gone")

    def remaining(self) -> float | None:
        return self._seconds


@pytest.fixture
def scope() -> type[Scope]:
    return Scope


def dot_spec(rule: optim.Rule | None = None, rate: float = 0.5, **settings: Any) -> SessionSpec:
    """The loss sum(x * w) + sum(x * c): its gradient by w is x, and by x it is w + c, as they were in the pass."""
    vector = TensorType.of(np.float64, (3,))
    graph = Graph(
        inputs=(Input("x", vector),),
        parameters=(Parameter("w", vector), Parameter("c", vector, frozen=True)),
        nodes=(
            Node("Add", ("w", "c"), ("total",)),
            Node("Mul", ("x", "total"), ("y",)),
            Node("ReduceSum", ("y",), ("loss",), {"keepdims": 0}),
        ),
        outputs={"y": "y", "w": "w"},
        loss="loss",
    )
    optimizer = optim.Optimizer(rate, rule or optim.Sgd(), **settings)
    return SessionSpec(graph, {"w": START.copy(), "c": np.array([10.0, 20.0, 30.0])}, optimizer)


def network_spec(optimizer: optim.Optimizer | None = None, seed: int = 3) -> SessionSpec:
    """A float32 network with Dropout, whose results depend on the seed and on the number of the pass."""
    graph = Graph(
        inputs=(Input("x", TensorType.of(np.float32, ("batch", 4))),),
        parameters=(
            Parameter("w1", TensorType.of(np.float32, (4, 5))),
            Parameter("w2", TensorType.of(np.float32, (5, 2))),
        ),
        nodes=(
            Node("MatMul", ("x", "w1"), ("z1",)),
            Node("Sigmoid", ("z1",), ("a1",)),
            Node("Dropout", ("a1", "ratio", "training"), ("d1",)),
            Node("MatMul", ("d1", "w2"), ("z2",)),
            Node("Mul", ("z2", "z2"), ("square",)),
            Node("ReduceMean", ("square",), ("loss",), {"keepdims": 0}),
        ),
        constants={"ratio": np.array(0.5, np.float32), "training": np.array(True)},
        outputs={"z2": "z2", "d1": "d1"},
        loss="loss",
    )
    draw = np.random.default_rng(1)
    values = {name: draw.normal(size=shape).astype(np.float32) for name, shape in (("w1", (4, 5)), ("w2", (5, 2)))}
    return SessionSpec(graph, dict(values), optimizer or optim.Optimizer(0.1, optim.Adam()), seed)


@pytest.fixture
def dot() -> Callable[..., SessionSpec]:
    return dot_spec


@pytest.fixture
def network() -> Callable[..., SessionSpec]:
    return network_spec


@pytest.fixture
def make_store() -> Iterator[Callable[..., SessionStore]]:
    stores: list[SessionStore] = []

    def make(**limits: Any) -> SessionStore:
        stores.append(SessionStore(Limits(**limits)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def make_session(make_store: Callable[..., SessionStore]) -> MakeSession:
    """Makes a session from a spec, or from `dot_spec`, in a store of its own with these limits."""

    def make(spec: SessionSpec | None = None, **limits: Any) -> Session:
        store = make_store(**limits)
        return store.get(store.create(UNBOUNDED, spec or dot_spec()).session_id)

    return make


@pytest.fixture
def session(make_session: MakeSession) -> Session:
    return make_session()


@pytest.fixture
def values() -> Callable[[Session], dict[str, Array]]:
    """Returns copies of all parameters of a session."""

    def read(session: Session) -> dict[str, Array]:
        with session.parameters(UNBOUNDED) as snapshot:
            return {name: array.copy() for name, array in snapshot}

    return read


@pytest.fixture
def gradients() -> Callable[[Session], dict[str, Array]]:
    """Returns copies of all accumulated gradients of a session."""

    def read(session: Session) -> dict[str, Array]:
        with session.gradients(UNBOUNDED) as snapshot:
            return {name: array.copy() for name, array in snapshot}

    return read


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No helper processes."""
    monkeypatch.setattr(crew, "CREW", Crew(0))


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Two helper processes, however many processors there are."""
    made = Crew(2)
    monkeypatch.setattr(crew, "CREW", made)
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as found:
        yield found


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody computes because it waited for long, however slow the machine is."""
    monkeypatch.setattr(processors, "PATIENCE", SECONDS)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator["Gate"]:
    from tests.sessions.grouped import Gate  # which needs JAX

    made = Gate(monkeypatch)
    yield made
    made.open.set()


@pytest.fixture
def store() -> Iterator[SessionStore]:
    """A store whose sessions on JAX may be computed together."""
    made = SessionStore(Limits(), grouped=True)
    yield made
    made.close()
