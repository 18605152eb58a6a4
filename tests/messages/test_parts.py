"""Parts of batches as they are told to other servers."""

from dataclasses import fields, replace
from typing import Any

import numpy as np

from backwire_server.messages.parts import order_of, part_of
from backwire_server.parallel.task import Part


def test_all_that_a_part_says_is_told() -> None:
    x, n = (np.dtype(np.float32), (3, 4)), (np.dtype(np.int64), ())
    step = Part({"x": x, "n": n}, ("y",), (2**64 - 1, 7))
    told: dict[str, Any] = {
        "inputs": {"z": x},
        "outputs": None,
        "key": (5, 8),
        "scale": 0.5,
        "seeds": {"y": x},
        "wrt": ("x",),
        "tells": False,
        "differentiates": False,
    }
    assert {each.name for each in fields(Part)} == told.keys()
    for part in (step, *(replace(step, **{name: value}) for name, value in told.items())):
        assert part_of(order_of(part)) == part
    assert part_of(order_of(replace(step, outputs=()))).outputs == ()
