"""A call whose caller goes while it computes ends before the next kernel, and the session is as it was before."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.stopping import After

from backwire_server import optim
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.sessions.calls import BackwardCall, CheckCall, ForwardCall, TrainCall
from backwire_server.sessions.errors import Cancelled, DeadlineExceeded
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED, CallScope, Unbounded
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec

Array = NDArray[Any]
Act = Callable[[Session, CallScope, RequestKey], object]

DRAW = np.random.default_rng(8)
X = DRAW.normal(size=(6, 4)).astype(np.float32)
IMAGES = DRAW.normal(size=(3, 2, 5, 5)).astype(np.float32)


class Leaving(Unbounded):
    """A call whose caller goes while it computes; without `error`, it is not known why."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self._stop = After(most)
        self._error = error

    @property
    def stop(self) -> After:
        return self._stop

    def check(self) -> None:
        if self._error is not None and self.stop.looks > self.stop.most:
            raise self._error


def normalized_spec() -> SessionSpec:
    """A small convolutional network with BatchNormalization, whose averages every pass in training moves."""
    draw = np.random.default_rng(2)
    shapes = {"w": (3, 2, 3, 3), "scale": (3,), "shift": (3,), "mean": (3,), "var": (3,), "out": (27, 2)}
    values = {name: draw.uniform(0.1, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    graph = Graph(
        inputs=(Input("x", TensorType.of(np.float32, ("batch", 2, 5, 5))),),
        parameters=tuple(
            Parameter(name, TensorType.of(np.float32, shape), frozen=name in ("mean", "var"))
            for name, shape in shapes.items()
        ),
        nodes=(
            Node("Conv", ("x", "w"), ("c",)),
            Node(
                "BatchNormalization",
                ("c", "scale", "shift", "mean", "var"),
                ("n", "next_mean", "next_var"),
                {"training_mode": 1},
            ),
            Node("Relu", ("n",), ("r",)),
            Node("Flatten", ("r",), ("f",)),
            Node("MatMul", ("f", "out"), ("y",)),
            Node("Mul", ("y", "y"), ("square",)),
            Node("ReduceMean", ("square",), ("loss",), {"keepdims": 0}),
        ),
        outputs={"y": "y"},
        loss="loss",
        updates={"mean": "next_mean", "var": "next_var"},
    )
    return SessionSpec(graph, dict(values), optim.Optimizer(0.1, optim.Sgd(momentum=0.9)), 5)


@pytest.fixture(params=["dropout", "normalized"])
def pair(request: Any, make_session: Any, network: Any) -> tuple[Session, Session, Array]:
    """A session that is disturbed, its twin that is not, and their input."""
    make, x = (network, X) if request.param == "dropout" else (normalized_spec, IMAGES)
    return make_session(make()), make_session(make()), x


def begin(session: Session, x: Array) -> None:
    """Takes a step, then leaves a pass and accumulated gradients behind."""
    session.train_step(UNBOUNDED, TrainCall({"x": x}))
    session.forward(UNBOUNDED, ForwardCall({"x": x}, forward_id="open"))
    done = session.forward(UNBOUNDED, ForwardCall({"x": x}))
    session.backward(UNBOUNDED, BackwardCall(done.forward_id, weight=0.5))


def standing(session: Session) -> tuple[object, ...]:
    """Returns all of a session that a call may change and another can see."""
    with session.my_turn(UNBOUNDED) as keeper:
        content = keeper.content
        trainer = content.trainer
        return (
            trainer.forwards,
            trainer.nbytes,
            content.nbytes,
            [key for key, _ in content.log.entries()],
            [name for name, _ in trainer.passes.births],
            list(trainer.passes.dropped),
            (trainer.accumulator.contributions, trainer.accumulator.total_weight, trainer.settled),
        )


def told(value: object) -> object:
    """Returns an answer with the bytes of its arrays, to be compared."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {name: told(each) for name, each in value.items()}
    names = getattr(type(value), "__dataclass_fields__", None)
    return value if names is None else {name: told(getattr(value, name)) for name in names}


def key(name: str) -> RequestKey:
    return RequestKey(name, name.encode())


def acts(x: Array) -> dict[str, Act]:
    return {
        "forward": lambda s, scope, key: s.forward(scope, ForwardCall({"x": x}), key),
        "backward": lambda s, scope, key: s.backward(scope, BackwardCall("open", wrt=("x",), retain=True), key),
        "train_step": lambda s, scope, key: s.train_step(scope, TrainCall({"x": x}), key),
    }


@pytest.mark.parametrize("kind", ["forward", "backward", "train_step"])
@pytest.mark.parametrize("accumulated", [True, False])
def test_a_call_that_is_stopped_anywhere_changes_nothing(
    pair: tuple[Session, Session, Array], kind: str, accumulated: bool
) -> None:
    session, twin, x = pair
    for each in (session, twin):
        begin(each, x)
        if not accumulated:
            each.zero_gradients(UNBOUNDED)
    act = acts(x)[kind]
    before, digest = standing(session), session.digest(UNBOUNDED)
    most = 0
    while True:
        scope = Leaving(most)
        try:
            found = act(session, scope, key("again"))
        except Cancelled:
            assert scope.stop.looks == most + 1
            assert (standing(session), session.digest(UNBOUNDED)) == (before, digest)
            most += 1
        else:
            break
    assert most >= 5
    assert told(found) == told(act(twin, UNBOUNDED, key("again")))
    assert session.digest(UNBOUNDED) == twin.digest(UNBOUNDED)
    for name in ("backward", "train_step"):
        followed = [told(acts(x)[name](each, UNBOUNDED, key(name))) for each in (session, twin)]
        assert followed[0] == followed[1]
    assert session.digest(UNBOUNDED) == twin.digest(UNBOUNDED)


@pytest.mark.parametrize("kind", ["forward", "backward", "train_step"])
def test_the_budget_is_as_before(make_store: Any, kind: str) -> None:
    store = make_store()
    session = store.get(store.create(UNBOUNDED, normalized_spec()).session_id)
    begin(session, IMAGES)
    used = store.budget.used
    for most in (0, 3, 9):
        with pytest.raises(Cancelled):
            acts(IMAGES)[kind](session, Leaving(most), key("again"))
        assert store.budget.used == used


def test_a_call_that_is_stopped_says_why(make_session: Any, network: Any) -> None:
    session = make_session(network())
    late = DeadlineExceeded("the time is up")
    with pytest.raises(DeadlineExceeded) as raised:
        session.forward(Leaving(3, late), ForwardCall({"x": X}))
    assert raised.value is late
    with pytest.raises(Cancelled, match="nothing was changed"):
        session.forward(Leaving(3), ForwardCall({"x": X}))


def test_evaluation_and_checks_stop_between_kernels(pair: tuple[Session, Session, Array]) -> None:
    session, twin, x = pair
    for most in (0, 2, 4):
        scope = Leaving(most)
        with session.my_turn(scope) as keeper, pytest.raises(Cancelled):
            keeper.evaluate(ForwardCall({"x": x}), scope)
        assert scope.stop.looks == most + 1
    for most in (0, 4, 60, 150):
        scope = Leaving(most)
        with session.my_turn(scope) as keeper, pytest.raises(Cancelled):
            keeper.check_gradients(CheckCall({"x": x}, max_elements=8), scope)
        assert scope.stop.looks == most + 1
    call = TrainCall({"x": x})
    assert told(session.train_step(UNBOUNDED, call)) == told(twin.train_step(UNBOUNDED, call))
    assert session.digest(UNBOUNDED) == twin.digest(UNBOUNDED)
