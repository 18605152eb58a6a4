"""Sessions that may be computed together, and what holds them until they are."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("jax")

from backwire_server.sessions.executors import Executor
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.store.store import SessionStore
from backwire_server.xla.group_step import GroupStep

Array = NDArray[Any]
Values = Callable[[Session], dict[str, Array]]


class Gate:
    """Holds the first group until so many calls have asked, and notes how large all groups were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.armed = True
        self.open = threading.Event()
        self.reached = threading.Event()
        compute = GroupStep.compute

        def held(step: GroupStep, cohort: Any, members: Sequence[Any]) -> Any:
            if self.armed:
                self.sizes.append(len(members))
            if len(self.sizes) == 1:
                self.reached.set()
                assert self.open.wait(60)
            return compute(step, cohort, members)

        monkeypatch.setattr(GroupStep, "compute", held)

    def together(self, first: Callable[[], Any], others: Sequence[Callable[[], Any]], waiting: Any) -> list[Any]:
        """Returns what the calls return or raise, of which all but the first wait while the first is computed."""
        with ThreadPoolExecutor(1 + len(others)) as pool:
            futures = [pool.submit(first)]
            assert self.reached.wait(60)
            futures += [pool.submit(each) for each in others]
            while len(waiting()) < len(others):
                threading.Event().wait(0.001)
            self.open.set()
            return [future.exception() or future.result() for future in futures]


def on_jax(spec: SessionSpec) -> SessionSpec:
    return replace(spec, executor=Executor.JAX)


def make(store: SessionStore, spec: SessionSpec) -> Session:
    return store.get(store.create(UNBOUNDED, on_jax(spec)).session_id)


def waiting() -> list[Any]:
    from backwire_server.sessions.turns.line import _LINES

    return [seat for line in list(_LINES.values()) for seat in list(line._waiting)]


def assert_same(values: Values, first: Session, second: Session) -> None:
    expected, found = values(first), values(second)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
