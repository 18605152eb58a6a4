"""Passes in parts, as tests make them."""

from typing import Any

import numpy as np
from tests.sessions.parted_steps import EXAMPLES, batch

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.session import session_spec
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec

PARTS = 3


def forward(session: Session, number: int, **call: Any) -> str:
    return session.forward(UNBOUNDED, ForwardCall(batch(number), **call)).forward_id


def backward(session: Session, name: str, **call: Any) -> Any:
    return session.backward(UNBOUNDED, BackwardCall(name, **call))


def in_calls(session: Session, number: int) -> None:
    """Does a step as calls of its own."""
    backward(session, forward(session, number))
    session.step(UNBOUNDED, StepOptions())


def late(session: Session, number: int) -> dict[str, Any]:
    """Steps by a pass and then by gradients of it with older parameters; returns those of inputs."""
    name = session.forward(UNBOUNDED, ForwardCall(given(number), ("y",))).forward_id
    backward(session, name, retain=True)
    session.step(UNBOUNDED, StepOptions())
    seeds = {each: SEEDS[each] for each in ("y", "loss")}
    found = backward(session, name, output_gradients=seeds, wrt=("x", "scale")).input_gradients
    session.step(UNBOUNDED, StepOptions(learning_rate=0.01))
    return dict(found)


def sides(data_parallel: int = 0) -> SessionSpec:
    """A graph with outputs per example, of a mean and of a count, with an input that all examples share."""
    x, t, scale = bw.input("x", ("batch", 4)), bw.input("t", ("batch", 2)), bw.input("scale", (2,))
    y = bw.dense(bw.tanh(bw.dense(x, 6, name="in")), 2, name="out") * scale
    outputs = {"y": y, "mean": bw.mean(y * y), "high": bw.sum(bw.cast(y > t, "int32"))}
    graph = bw.graph(loss=bw.squared_error(y, t), outputs=outputs)
    asked = pb.CreateSessionRequest(graph=graph.proto, optimizer=bw.SGD(0.1).to_proto(), data_parallel=data_parallel)
    return session_spec(asked, Limits())


def given(number: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    shapes = {"x": (EXAMPLES, 4), "t": (EXAMPLES, 2), "scale": (2,)}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


SEEDS = {
    "y": np.random.default_rng(5).normal(size=(EXAMPLES, 2)).astype(np.float32),
    "mean": np.array(0.75, np.float32),
    "loss": np.array(-1.5, np.float32),
}
