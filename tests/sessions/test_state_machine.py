"""Drives a session through any sequence of calls and compares it with a model that is plain arithmetic.

The loss is sum(x * (w + c)) with small whole numbers, so everything is exact: the gradient by w is x, and the gradient
by x is what w + c was when the pass was made.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from backwire_server import optim
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, NonFinitePolicy, StepOptions, TrainCall
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.store.store import SessionStore
from backwire_server.sessions.training.accumulator import Normalization
from backwire_server.sessions.training.snapshot import Snapshot

Array = NDArray[Any]

MAX_PASSES = 3
RATE = 0.5
VECTOR = TensorType.of(np.float64, (2,))
GRAPH = Graph(
    inputs=(Input("x", VECTOR),),
    parameters=(Parameter("w", VECTOR), Parameter("c", VECTOR, frozen=True)),
    nodes=(
        Node("Add", ("w", "c"), ("total",)),
        Node("Mul", ("x", "total"), ("y",)),
        Node("ReduceSum", ("y",), ("loss",), {"keepdims": 0}),
    ),
    outputs={"y": "y"},
    loss="loss",
)

vectors = st.tuples(st.integers(-4, 4), st.integers(-4, 4)).map(lambda pair: np.array(pair, np.float64))
weights = st.sampled_from([1.0, 2.0, 0.5])


@dataclass
class Model:
    """What the session must be like."""

    w: Array
    c: Array
    step: int = 0
    gradient: Array = field(default_factory=lambda: np.zeros(2))
    weight: float = 0.0
    contributions: int = 0
    passes: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def keep(self, name: str, x: Array) -> None:
        self.passes[name] = x, self.w + self.c
        self.gone.discard(name)
        while len(self.passes) > MAX_PASSES:
            oldest = next(iter(self.passes))
            self.drop(oldest)

    def drop(self, name: str) -> None:
        del self.passes[name]
        self.gone.add(name)

    def add(self, x: Array, weight: float) -> None:
        self.gradient = self.gradient + weight * x
        self.weight += weight
        self.contributions += 1

    def clear(self) -> None:
        self.gradient, self.weight, self.contributions = np.zeros(2), 0.0, 0

    def combined(self, normalization: Normalization) -> Array:
        return self.gradient if normalization is Normalization.SUM else self.gradient / self.weight

    def apply(self, normalization: Normalization) -> None:
        self.w = self.w - RATE * self.combined(normalization)
        self.step += 1
        self.clear()


class SessionMachine(RuleBasedStateMachine):
    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.store = SessionStore(Limits(max_passes=MAX_PASSES))
        w, c = np.array([1.0, 2.0]), np.array([10.0, 20.0])
        spec = SessionSpec(GRAPH, {"w": w, "c": c}, optim.Optimizer(RATE, optim.Sgd()))
        self.session = self.store.get(self.store.create(UNBOUNDED, spec).session_id)
        self.model = Model(w, c)
        self.readers: list[tuple[Snapshot, dict[str, Array]]] = []
        self.repeat: Any = None
        self.answer: Any = None
        self.requests = 0

    def teardown(self) -> None:
        self.store.close()

    def mutate(self, call: Any) -> Any:
        """Does the call under a new request id, and remembers it for `repeat_the_last_mutation`."""
        self.requests += 1
        key = RequestKey(f"request {self.requests}", b"")
        self.answer = call(key)
        self.repeat = lambda: call(key)
        return self.answer

    @rule(target=names, x=vectors, name=st.sampled_from(["", "", "a", "b"]))
    def forward(self, x: Array, name: str) -> str:
        call = ForwardCall({"x": x}, forward_id=name)
        if name in self.model.passes:
            self.refused(errors.PassExists, lambda: self.session.forward(UNBOUNDED, call))
            return name
        result = self.mutate(lambda key: self.session.forward(UNBOUNDED, call, key))
        assert result.loss == float(np.sum(x * (self.model.w + self.model.c)))
        assert name in ("", result.forward_id)
        self.model.keep(result.forward_id, x)
        return str(result.forward_id)

    @rule(name=names, retain=st.booleans(), weight=weights)
    def backward(self, name: str, retain: bool, weight: float) -> None:
        call = BackwardCall(name, wrt=("x",), retain=retain, weight=weight)
        if name not in self.model.passes:
            self.refused(errors.PassExpired, lambda: self.session.backward(UNBOUNDED, call))
            return
        result = self.mutate(lambda key: self.session.backward(UNBOUNDED, call, key))
        x, total = self.model.passes[name]
        np.testing.assert_array_equal(result.input_gradients["x"], total)
        self.model.add(x, weight)
        assert result.contributions == self.model.contributions
        if not retain:
            self.model.drop(name)

    @rule(normalization=st.sampled_from(Normalization))
    def step(self, normalization: Normalization) -> None:
        options = StepOptions(expected_step=self.model.step, normalization=normalization)
        if not self.model.contributions:
            self.refused(errors.NoGradients, lambda: self.session.step(UNBOUNDED, options))
            return
        norm = float(np.linalg.norm(self.model.combined(normalization)))
        result = self.mutate(lambda key: self.session.step(UNBOUNDED, options, key))
        assert abs(result.gradient_norm - norm) <= 1e-12 * norm
        self.model.apply(normalization)
        assert result.step == self.model.step

    @rule(x=vectors, weight=weights, normalization=st.sampled_from(Normalization))
    def train_step(self, x: Array, weight: float, normalization: Normalization) -> None:
        call = TrainCall({"x": x}, ("y",), weight, StepOptions(normalization=normalization))
        result = self.mutate(lambda key: self.session.train_step(UNBOUNDED, call, key))
        np.testing.assert_array_equal(result.outputs["y"], x * (self.model.w + self.model.c))
        self.model.add(x, weight)
        self.model.apply(normalization)

    @rule(policy=st.sampled_from([NonFinitePolicy.REJECT, NonFinitePolicy.SKIP]))
    def train_step_on_infinity(self, policy: NonFinitePolicy) -> None:
        call = TrainCall({"x": np.array([np.inf, 1.0])}, options=StepOptions(non_finite=policy))
        if policy is NonFinitePolicy.REJECT:
            self.refused(errors.NonFiniteGradient, lambda: self.session.train_step(UNBOUNDED, call))
        else:
            result = self.mutate(lambda key: self.session.train_step(UNBOUNDED, call, key))
            assert result.result.skipped
            self.model.clear()

    @rule(w=vectors, c=st.none() | vectors)
    def set_parameters(self, w: Array, c: Array | None) -> None:
        given = {"w": w} if c is None else {"w": w, "c": c}
        self.mutate(lambda key: self.session.set_parameters(UNBOUNDED, given, key))
        self.model.w, self.model.c = w, self.model.c if c is None else c

    @rule()
    def zero_gradients(self) -> None:
        result = self.mutate(lambda key: self.session.zero_gradients(UNBOUNDED, key))
        assert result.count == self.model.contributions
        self.model.clear()

    @precondition(lambda self: self.repeat is not None)
    @rule()
    def repeat_the_last_mutation(self) -> None:
        assert self.repeat() is self.answer

    @rule()
    def open_readers(self) -> None:
        parameters, gradients = self.session.parameters(UNBOUNDED), self.session.gradients(UNBOUNDED)
        self.readers.append((parameters, {"w": self.model.w, "c": self.model.c}))
        self.readers.append((gradients, {"w": self.model.gradient}))

    @precondition(lambda self: self.readers)
    @rule()
    def close_a_reader(self) -> None:
        self.readers.pop(0)[0].close()

    def refused(self, error: type[Exception], call: Any) -> None:
        try:
            call()
        except error:
            return
        raise AssertionError(f"{error.__name__} was expected")

    @invariant()
    def it_is_like_the_model(self) -> None:
        info = self.session.info()
        assert (info.step, info.contributions) == (self.model.step, self.model.contributions)
        assert info.forward_ids == tuple(self.model.passes)
        for snapshot, expected in (
            (self.session.parameters(UNBOUNDED), {"w": self.model.w, "c": self.model.c}),
            (self.session.gradients(UNBOUNDED), {"w": self.model.gradient}),
            *self.readers,
        ):
            for name, array in snapshot:
                np.testing.assert_array_equal(array, expected[name])


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=60, stateful_step_count=30)
