"""Steps in parts, as tests do them: a graph, its batches, and calls that lead to the same by hand."""

import contextlib
import os
import signal
import time
from typing import Any

import numpy as np

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.session import session_spec
from backwire_server.parallel.crew import Crew
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall, TrainResult
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.accumulator import Normalization

SECONDS = 60.0

PAUSE = 0.02  # between steps that wait for helpers: all are done again, and helpers need a processor to start on, too

EXAMPLES = 11


def network(data_parallel: int = 0) -> SessionSpec:
    """A network with Dropout, classes and a frozen parameter, whose results depend on each pass's number."""
    x, labels = bw.input("x", ("batch", 4)), bw.input("labels", ("batch",), dtype="int64")
    table = bw.parameter("table", np.linspace(0.5, 1.5, 4, dtype=np.float32), frozen=True)
    logits = bw.dense(bw.dropout(bw.tanh(bw.dense(x * table, 6, name="in"))), 3, name="out")
    graph = bw.graph(loss=bw.softmax_cross_entropy(logits, labels), outputs={"logits": logits})
    asked = pb.CreateSessionRequest(
        graph=graph.proto, optimizer=bw.Adam(0.05).to_proto(), seed=7, data_parallel=data_parallel
    )
    return session_spec(asked, Limits())


def batch(number: int, examples: int = EXAMPLES) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {
        "x": draw.normal(size=(examples, 4)).astype(np.float32),
        "labels": draw.integers(0, 3, size=examples),
    }


def step(session: Session, number: int, parts: int = 0, **call: Any) -> TrainResult:
    return session.train_step(UNBOUNDED, TrainCall(batch(number), data_parallel=parts, **call))


def by_hand(session: Session, number: int, parts: int) -> None:
    """Does what a step in parts does as calls of its own."""
    rows = np.array_split(np.arange(EXAMPLES), parts)
    for each in rows:
        part = {name: array[each] for name, array in batch(number).items()}
        made = session.forward(UNBOUNDED, ForwardCall(part))
        session.backward(UNBOUNDED, BackwardCall(made.forward_id, weight=float(len(each))))
    session.step(UNBOUNDED, StepOptions(normalization=Normalization.MEAN))


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def trained(session: Session, helpers: Crew, parts: int = 0, more: int = 3) -> int:
    """Trains until helpers have computed more parts, and returns how many steps that took."""
    enough, deadline, steps = helpers.helped + more, time.monotonic() + SECONDS, 0
    while helpers.helped < enough:
        assert time.monotonic() < deadline, "no helper computed anything"
        step(session, steps, parts)
        steps += 1
        time.sleep(PAUSE)
    return steps
