"""Sessions without files, and those that images hold."""

from typing import Any

import numpy as np
from tests.storage.drawing import told

from backwire_server.sessions.budget import Budget
from backwire_server.sessions.keeping.content import Content
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.imaging import state_of
from backwire_server.sessions.training.state import Image
from backwire_server.sessions.training.versions import Array


def x(number: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(number).normal(size=(3, 4)).astype(np.float32)}


def begun(spec: SessionSpec) -> Content:
    """A session that has just begun, without files."""
    return Content.new(spec, Limits(), Budget(1 << 30).account())


def again(spec: SessionSpec, image: Image) -> Content:
    """The session that an image holds."""
    return Content.of(spec, image, Limits(), Budget(1 << 30).account())


def do(content: Content, *calls: Any) -> list[Any]:
    """The answers to calls, and the digest after each."""
    return [(told(content.perform(call, lambda: None)), state_of(content.trainer).digest()) for call in calls]


FLAT = np.zeros(3)
