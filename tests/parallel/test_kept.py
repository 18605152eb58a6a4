"""A helper keeps the passes of parts for Backward, within its room, and forgets them when it is told to."""

import os
from typing import Any

import numpy as np
from tests.parallel.graphs import engine_graph

import backwire as bw
from backwire_server.engine.graph import Graph
from backwire_server.engine.model import Model, Pass
from backwire_server.parallel import kept, part
from backwire_server.parallel.helper import Helper
from backwire_server.parallel.kept import Passes, Residue
from backwire_server.parallel.segment import Segment, packed_bytes, vector_kinds
from backwire_server.parallel.task import Part, Task

KINDS = {"x": (np.dtype(np.float32), (5, 3))}
FORWARD = Part(KINDS, None, (0, 0), differentiates=False)
BACKWARD = Part(KINDS, None, (0, 0), tells=False)
NUMBER = 7


class Asking:
    """A helper in this process, and the memory that it reads and writes."""

    def __init__(self) -> None:
        self.graph = engine_graph(bw.mean(bw.tanh(bw.dense(bw.input("x", ("batch", 3)), 2, name="top"))))
        self.layout = part.layout_of(self.graph)
        nbytes = packed_bytes(vector_kinds(self.layout))
        self._segments = [Segment(each) for each in (nbytes, 1, packed_bytes(KINDS), nbytes)]
        self.parameters, self.gradients = (
            self.layout.views(self._segments[place].vectors(self.layout)) for place in (0, 3)
        )
        self.x = self._segments[2].arrays(KINDS)["x"]
        draw = np.random.default_rng(0)
        for array in (self.x, *self.parameters.values()):
            array[...] = draw.normal(size=array.shape)
        self._helper = Helper()
        self._untold: Graph | None = self.graph

    def perform(self, asked: Part, released: tuple[int, ...] = ()) -> dict[str, Any]:
        """Has a part computed, and returns the gradients."""
        new = self._segments if self._untold else []
        given = tuple((each.number, each.nbytes) for each in new)
        numbers = tuple(each.number for each in self._segments)
        work = Task(asked, 1, self._untold, numbers, given, (), (), released, place=1, residue=NUMBER)
        self._untold = None
        assert self._helper.perform(work, [os.dup(each.descriptor) for each in new]) is not None
        return {name: array.copy() for name, array in self.gradients.items()}


def test_a_helper_differentiates_the_pass_that_it_kept_until_that_is_released() -> None:
    asking = Asking()
    asking.perform(FORWARD)
    expected = asking.perform(BACKWARD)
    asking.x[...] = 0.0  # the next part lies there
    for name, array in asking.perform(BACKWARD).items():
        np.testing.assert_array_equal(array, expected[name])
    made_again = asking.perform(BACKWARD, released=(NUMBER,))
    assert not made_again["top/weight"].any(), "it has no other inputs than those of now"


def test_the_oldest_passes_go_when_all_hold_too_much() -> None:
    each = [a_pass() for _ in range(3)]
    passes = Passes(2 * each[0].nbytes)
    for place, made in enumerate(each):
        passes.add(1, place, made)
    assert [passes.find(1, place) for place in range(3)] == [None, *each[1:]]
    assert passes.nbytes == 2 * each[0].nbytes
    passes.add(2, 0, each[0])
    passes.release([1])
    assert [passes.find(number, place) for number, place in ((1, 1), (1, 2), (2, 0))] == [None, None, each[0]]
    assert passes.nbytes == each[0].nbytes


def test_what_is_known_of_a_pass_is_gone_with_who_may_ask_for_it() -> None:
    residue = Residue()
    number = residue.number
    residue.passes[0] = a_pass()
    assert kept.LIVE[number].nbytes > 0
    del residue
    assert number not in kept.LIVE


def a_pass() -> Pass:
    """One of a small model."""
    asking = Asking()
    return part.forward(Model(asking.graph), FORWARD, {"x": asking.x.copy()}, asking.parameters)
