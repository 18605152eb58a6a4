"""Calls of the network of these tests, of all kinds, for trainers that differ in where they compute."""

from dataclasses import replace
from typing import Any

import numpy as np

from backwire_server.sessions.calls import BackwardCall, ForwardCall, SetCall, StepOptions, TrainCall, ZeroCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.training.trainer import Mutating

X = np.random.default_rng(4).normal(size=(6, 4)).astype("f4")
TRAIN = TrainCall({"x": X}, outputs=("z2",))

CALLS: list[Mutating] = [
    TRAIN,
    TRAIN,
    ForwardCall({"x": X}, forward_id="kept"),
    TRAIN,
    TRAIN,
    BackwardCall("kept"),
    TRAIN,
    SetCall({"w2": np.ones((5, 2), "f4")}),
    replace(TRAIN, options=StepOptions(learning_rate=0.01)),
    replace(TRAIN, weight=2.0),
    TRAIN,
    ForwardCall({"x": X}, forward_id="last"),
    BackwardCall("last", retain=True),
    StepOptions(),
    BackwardCall("last"),
    ZeroCall(),
    TRAIN,
]


def perform(session: Session, call: Mutating, scope: Any = UNBOUNDED) -> Any:
    with session.my_turn(scope) as keeper:
        return keeper.perform(call, None, scope)
