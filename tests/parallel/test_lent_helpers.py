"""Helpers that compute a part for another server."""

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.parallel.graphs import engine_graph
from tests.waiting import until

import backwire as bw
from backwire_server.engine.stopping import Stop, Stopped
from backwire_server.parallel import crew
from backwire_server.parallel.crew import Crew, NoneFree
from backwire_server.parallel.part import frozen_kinds, layout_of
from backwire_server.parallel.segment import Segment, packed_bytes, vector_kinds
from backwire_server.parallel.task import Part, Places, Work, fresh_number


def test_a_helper_that_goes_on_for_nobody_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "FAREWELL_SECONDS", 0.1)
    made, stop, work = Crew(1), Stop(), one_part()
    try:
        until(partial(lent, made, work, stop))
        (pid,) = made.pids
        os.kill(pid, signal.SIGSTOP)
        stop.wanted = True
        with pytest.raises(Stopped):
            made.lend(work, stop)
        assert made.pids == []
        assert not Path(f"/proc/{pid}").exists()
    finally:
        made.close()


def lent(made: Crew, work: Work, stop: Stop) -> bool:
    """Has a helper compute the part, and tells whether one was free."""
    try:
        assert made.lend(work, stop) is not None
    except NoneFree:
        return False
    return True


def one_part() -> Work:
    graph = engine_graph(bw.mean(bw.tanh(bw.dense(bw.input("x", ("batch", 3)), 2, name="top"))))
    vectors, kinds = packed_bytes(vector_kinds(layout_of(graph))), {"x": (np.dtype(np.float32), (5, 3))}
    places = Places(
        Segment(vectors), Segment(packed_bytes(frozen_kinds(graph))), Segment(packed_bytes(kinds)), Segment(vectors)
    )
    part = Part(kinds, (), (7, 0))
    return Work(fresh_number(), graph, 1, lambda _: (part, places))
