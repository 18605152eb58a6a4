"""Segments have the same bytes in all processes that map them, and are gone with the last."""

import gc
import os

import numpy as np
import pytest

from backwire_server.optim import FlatLayout
from backwire_server.parallel.segment import LIVE, Kind, Segment, packed_bytes, vector_kinds


def test_what_one_mapping_writes_another_reads() -> None:
    small, large = np.dtype(np.int8), np.dtype(np.float64)
    kinds: dict[str, Kind] = {"a": (small, (3,)), "empty": (large, (0, 2)), "b": (large, (2,))}
    ours = Segment(packed_bytes(kinds))
    theirs = Segment(ours.nbytes, ours.number, os.dup(ours.descriptor))
    for name, array in ours.arrays(kinds).items():
        array[...] = len(name)
    found = theirs.arrays(kinds)
    assert {name: array.tolist() for name, array in found.items()} == {"a": [1, 1, 1], "empty": [], "b": [1.0, 1.0]}


def test_the_vectors_of_a_layout_do_not_overlap() -> None:
    layout = FlatLayout({"a": (np.float32, (5,)), "b": (np.float64, (3,)), "c": (np.float32, (2, 2))})
    segment = Segment(packed_bytes(vector_kinds(layout)))
    arrays = layout.views(segment.vectors(layout))
    for number, array in enumerate(arrays.values()):
        array[...] = number
    assert [array.min() == array.max() == number for number, array in enumerate(arrays.values())] == [True] * 3


def test_a_segment_that_nobody_refers_to_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    close = os.close

    def noted(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    segment = Segment(8)
    number, descriptor = segment.number, segment.descriptor
    assert LIVE[number] is segment
    monkeypatch.setattr(os, "close", noted)
    del segment
    gc.collect()
    assert number not in LIVE
    assert descriptor in closed


def test_arrays_outlive_their_segment() -> None:
    array = Segment(8).arrays({"x": (np.dtype(np.float64), (1,))})["x"]
    gc.collect()
    array[...] = 2.5
    assert array.tolist() == [2.5]
