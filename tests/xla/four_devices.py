"""What a model computes on four devices of JAX and on one, as a program of its own: their number is fixed by then.

Writes a line of JSON: what was computed, by number of devices and of rows.
"""

import json
import os
import sys
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np
from numpy.typing import NDArray

from backwire_server import optim
from backwire_server.engine.cost import admit_all
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.stopping import NEVER
from backwire_server.optim import FlatLayout
from backwire_server.xla.model import XlaModel
from backwire_server.xla.optimizing import TracedOptimizer
from backwire_server.xla.state import DeviceState, room_for, uploaded

Array = NDArray[Any]

GRAPH = Graph(
    inputs=(Input("x", TensorType.of("float32", ("batch", 6))), Input("scale", TensorType.of("float32", (5,)))),
    parameters=(Parameter("w", TensorType.of("float32", (6, 5))),),
    nodes=(
        Node("MatMul", ("x", "w"), ("z",)),
        Node("Mul", ("z", "scale"), ("s",)),
        Node("Softmax", ("s",), ("mixed",), {"axis": 0}),  # each row with all others
        Node("Mul", ("mixed", "s"), ("h",)),
        Node("ReduceSum", ("h",), ("l",), {"keepdims": 0}),
    ),
    outputs={"h": "h"},
    loss="l",
)
DRAW = np.random.default_rng(0)
VALUES = {"w": DRAW.normal(size=(6, 5)).astype("f4")}
ADAM = optim.Optimizer(0.1, optim.Adam())
ROWS = DRAW.normal(size=(12, 6)).astype("f4")


def inputs(rows: int) -> dict[str, Array]:
    return {"x": ROWS[:rows], "scale": np.arange(5, dtype="f4")}


def passes(devices: int, rows: int) -> dict[str, Any]:
    model = XlaModel(GRAPH, devices=devices)
    kept = model.forward(inputs(rows), VALUES, training=True)
    seeded = model.backward(kept, {"h": np.ones((rows, 5), "f4")}, ["x"])
    gradients = model.backward(kept)
    return {
        "loss": kept.loss,
        "values": [each.tolist() for each in (kept.outputs["h"], gradients.parameters["w"], seeded.inputs["x"])],
        "devices": max(len(_where(each)) for each in kept.residuals.values()),
    }


def steps(devices: int, rows: int, *, ahead: bool = False) -> dict[str, Any]:
    model, layout = XlaModel(GRAPH, devices=devices), FlatLayout({"w": (np.dtype("f4"), (6, 5))})
    traced = TracedOptimizer.of(ADAM, layout)
    assert traced is not None
    memory = traced.spread(optim.init(ADAM, layout))
    state = DeviceState(uploaded(traced.arrays(layout.pack(VALUES)), model.sharding), uploaded(memory, model.sharding))
    spare, losses = room_for(state), []
    for step in range(1, 4):
        running = model.train_step(
            inputs(rows),
            state,
            spare,
            {},
            traced,
            traced.figures(step, 0.1),
            staged=model.stage(inputs(rows), ("h",)) if ahead else {},
            outputs=("h",),
            key=(0, step),
            stop=NEVER,
            admit=admit_all,
        )
        found = running.result()
        assert found is not None
        state, spare = running.state, state
        losses.append(found.loss)
    (w,) = state.parameters
    copies = [np.asarray(shard.data).tobytes().hex() for shard in w.addressable_shards]
    return {"losses": losses, "w": np.asarray(w).tolist(), "bits": copies, "devices": len(_where(w))}


def _where(array: Any) -> set[Any]:
    return set(array.devices()) if isinstance(array, jax.Array) else set()


if __name__ == "__main__":
    cases = {f"{devices} devices, {rows} rows": (devices, rows) for devices in (1, 4) for rows in (12, 10)}
    told = {
        name: {
            "passes": passes(*case),
            "steps": steps(*case),
            "again": steps(*case),
            "ahead": steps(*case, ahead=True),
        }
        for name, case in cases.items()
    }
    sys.stdout.write(json.dumps(told) + "\n")
