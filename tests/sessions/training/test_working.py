"""Memory to compute in counts as long as something is computed in it, and no longer; what is reserved is given back."""

from typing import Any

import numpy as np
import pytest

from backwire_server.sessions.calls import BackwardCall, CheckCall, ForwardCall, TrainCall
from backwire_server.sessions.errors import CallTooLarge, Overloaded
from backwire_server.sessions.scope import UNBOUNDED, CallStop, Unbounded

X = np.array([1.0, 2.0, 3.0])


class Charged(Unbounded):
    """A call whose work is counted, and refused from `most` operations on."""

    def __init__(self, most: int = 1 << 60) -> None:
        super().__init__()
        self.flops: list[int] = []
        self._most = most
        self._stop = CallStop()
        self._stop.charge = self._charge

    @property
    def stop(self) -> CallStop:
        return self._stop

    def _charge(self, flops: int) -> None:
        if flops >= self._most:
            raise Overloaded("too much", retry_after=1.0, quota="some")
        self.flops.append(flops)


def test_every_kind_of_call_gives_back_what_it_computed_in(make_store: Any, dot: Any) -> None:
    store = make_store()
    session = store.get(store.create(UNBOUNDED, dot()).session_id)
    empty = store.budget.used
    evaluate = ForwardCall({"x": X})
    for _ in range(3):
        made = session.forward(UNBOUNDED, ForwardCall({"x": X}))
        kept = store.budget.used
        session.evaluate(UNBOUNDED, evaluate)
        assert store.budget.used == kept
        session.backward(UNBOUNDED, BackwardCall(made.forward_id))
        for _ in range(2):
            session.evaluate(UNBOUNDED, evaluate)
            assert store.budget.used == empty
        session.check_gradients(UNBOUNDED, CheckCall({"x": X}))
        session.evaluate(UNBOUNDED, evaluate)
        assert store.budget.used == empty
        session.zero_gradients(UNBOUNDED)
        assert store.budget.used == empty
    session.train_step(UNBOUNDED, TrainCall({"x": X}))
    session.evaluate(UNBOUNDED, evaluate)
    assert session._keeper._account.held >= 0
    held = session._keeper.content.nbytes
    assert store.budget.used == held


def test_a_check_of_many_elements_takes_no_more_than_one_of_few(make_store: Any, dot: Any) -> None:
    taken = []
    for elements in (1, 3):
        store = make_store()
        session = store.get(store.create(UNBOUNDED, dot()).session_id)
        account, most = session._keeper._account, 0
        take = store.budget.take

        def watched(nbytes: int, tenant: str, *, checked: bool, account: Any = account, take: Any = take) -> None:
            nonlocal most
            take(nbytes, tenant, checked=checked)
            most = max(most, account._budget.used)

        store.budget.take = watched
        session.check_gradients(UNBOUNDED, CheckCall({"x": X}, max_elements=elements))
        taken.append(most)
    assert taken[0] == taken[1] > 0


def test_a_call_that_is_refused_gives_back_what_it_was_to_compute_in(make_store: Any, dot: Any) -> None:
    store = make_store()
    session = store.get(store.create(UNBOUNDED, dot()).session_id)
    used = store.budget.used
    for call in (session.evaluate, session.forward):
        with pytest.raises(Overloaded):
            call(Charged(most=1), ForwardCall({"x": X}))
        assert store.budget.used == used
    small = make_store(max_call_bytes=1)
    refused = small.get(small.create(UNBOUNDED, dot()).session_id)
    used = small.budget.used
    with pytest.raises(CallTooLarge):
        refused.train_step(UNBOUNDED, TrainCall({"x": X}))
    assert small.budget.used == used


def test_a_step_in_one_call_is_charged_as_one_in_three(make_store: Any, dot: Any) -> None:
    store = make_store()
    session = store.get(store.create(UNBOUNDED, dot()).session_id)
    whole, parts = Charged(), Charged()
    session.train_step(whole, TrainCall({"x": X}))
    session.backward(parts, BackwardCall(session.forward(parts, ForwardCall({"x": X})).forward_id))
    assert sum(whole.flops) == sum(parts.flops) > 0
