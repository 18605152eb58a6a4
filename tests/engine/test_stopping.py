"""A computation that is stopped ends before its next kernel, and leaves the model as if it had not begun."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.stopping import After

from backwire_server.engine.check import Sampling, check_gradients
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Gradients, Model, Pass
from backwire_server.engine.stopping import Stop, Stopped

Array = NDArray[Any]


NETWORK = Graph(
    inputs=(Input("x", TensorType.of("float64", ("b", 3))), Input("t", TensorType.of("int64", ("b",)))),
    parameters=(Parameter("w", TensorType.of("float64", (3, 4))), Parameter("v", TensorType.of("float64", (4, 4)))),
    nodes=(
        Node("MatMul", ("x", "w"), ("z",)),
        Node("Tanh", ("z",), ("h",)),
        Node("Dropout", ("h", "ratio", "training"), ("d",)),
        Node("MatMul", ("d", "v"), ("scores",)),
        Node("SoftmaxCrossEntropyLoss", ("scores", "t"), ("loss",)),
    ),
    constants={"ratio": np.array(0.5), "training": np.array(True)},
    outputs={"scores": "scores", "d": "d"},
    loss="loss",
)
DRAW = np.random.default_rng(4)
INPUTS: Mapping[str, Array] = {"x": DRAW.normal(size=(6, 3)), "t": DRAW.integers(0, 4, 6)}
PARAMETERS: Mapping[str, Array] = {"w": DRAW.normal(size=(3, 4)), "v": DRAW.normal(size=(4, 4))}


def forward(model: Model, stop: Stop) -> Pass:
    return model.forward(INPUTS, PARAMETERS, training=True, key=(1, 2), stop=stop)


def bits(found: Pass | Gradients) -> dict[str, bytes]:
    arrays = found.outputs if isinstance(found, Pass) else {**found.parameters, **found.inputs}
    return {name: array.tobytes() for name, array in arrays.items()}


def looks(act: Callable[[Stop], object]) -> int:
    """Returns how often a computation looks whether to stop."""
    stop = After(1 << 30)
    act(stop)
    return stop.looks


@pytest.mark.parametrize("planned", [True, False])
def test_a_forward_computation_stops_at_every_node_that_is_compiled_and_before_every_kernel(planned: bool) -> None:
    expected = bits(forward(Model(NETWORK, planned=planned), Stop()))
    compiling = looks(lambda stop: forward(Model(NETWORK, planned=planned), stop))
    running = 0
    for most in range(compiling):
        stop, model = After(most), Model(NETWORK, planned=planned)
        with pytest.raises(Stopped):
            forward(model, stop)
        assert stop.looks == most + 1
        assert bits(forward(model, Stop())) == expected
        running = looks(partial(forward, model))
    assert compiling > running >= len(NETWORK.nodes)


@pytest.mark.parametrize("planned", [True, False])
def test_a_pass_can_be_differentiated_after_that_was_stopped(planned: bool) -> None:
    model = Model(NETWORK, planned=planned)
    kept = forward(model, Stop())
    expected = bits(model.backward(kept, wrt=("x",)))
    kernels = looks(lambda stop: model.backward(kept, wrt=("x",), stop=stop))
    assert kernels >= len(NETWORK.nodes)
    for most in range(kernels):
        with pytest.raises(Stopped):
            model.backward(kept, wrt=("x",), stop=After(most))
        assert bits(model.backward(kept, wrt=("x",))) == expected


def test_building_a_gradient_stops_between_nodes_and_keeps_nothing() -> None:
    model = Model(NETWORK)
    kept = forward(model, Stop())
    with pytest.raises(Stopped):
        model.backward(kept, wrt=("x",), stop=After(2))
    before = looks(lambda stop: model.backward(kept, wrt=("x",), stop=stop))
    assert before > looks(lambda stop: model.backward(kept, wrt=("x",), stop=stop))


def test_the_memory_of_a_stopped_pass_is_used_by_the_next() -> None:
    model = Model(NETWORK)
    first = forward(model, Stop())
    assert first.lease is not None
    frame = first.lease.forward
    del first
    with pytest.raises(Stopped):
        forward(model, After(2))
    following = forward(model, Stop())
    assert following.lease is not None
    assert following.lease.forward is frame


def test_an_open_pass_is_not_touched_by_one_that_is_stopped() -> None:
    model = Model(NETWORK)
    kept = forward(model, Stop())
    expected = bits(model.backward(kept))
    for most in range(looks(lambda stop: forward(model, stop))):
        with pytest.raises(Stopped):
            forward(model, After(most))
        assert bits(model.backward(kept)) == expected


@pytest.mark.parametrize("most", [0, 7, 30, 100])
def test_a_check_of_gradients_stops_between_kernels(most: int) -> None:
    stop = After(most)
    graph = replace(NETWORK, outputs={})
    with pytest.raises(Stopped):
        check_gradients(graph, INPUTS, PARAMETERS, Sampling(("w", "v"), 4, 0), key=(0, 0), stop=stop)
    assert stop.looks == most + 1
