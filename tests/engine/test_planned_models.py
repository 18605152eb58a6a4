"""A model with planned memory gives what it gives without, whatever is done with its passes in whatever order."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine import chains, frame, frames, model
from backwire_server.engine.errors import InvalidValue
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model, Pass
from backwire_server.engine.registry import OPS

Array = NDArray[Any]


def given(name: str, *shape: int | str, dtype: str = "float64") -> Input:
    return Input(name, TensorType.of(dtype, shape))


def trained(name: str, *shape: int, frozen: bool = False) -> Parameter:
    return Parameter(name, TensorType.of("float64", shape), frozen=frozen)


CLASSIFIER = Graph(
    inputs=(given("x", "b", 3), given("t", "b", dtype="int64")),
    parameters=(trained("w", 3, 4), trained("v", 4, 4), trained("m", 1, 3, frozen=True)),
    constants={"axes": np.array([0])},
    nodes=(
        Node("ReduceMean", ("x", "axes"), ("next",)),
        Node("Sub", ("x", "m"), ("centred",)),
        Node("MatMul", ("centred", "w"), ("z",)),
        Node("Tanh", ("z",), ("h",)),
        Node("Dropout", ("h",), ("d",)),
        Node("MatMul", ("d", "v"), ("scores",)),
        Node("SoftmaxCrossEntropyLoss", ("scores", "t"), ("l",)),
        Node("Transpose", ("x",), ("turned",)),
        Node("Transpose", ("h",), ("turned_h",)),
        Node("Transpose", ("w",), ("turned_w",)),
    ),
    outputs={name: name for name in ("h", "scores", "turned", "turned_h", "turned_w", "x", "w")},
    loss="l",
    updates={"m": "next"},
)
WINDOWS = Graph(
    inputs=(given("x", "b", 2, 6, 5),),
    parameters=(trained("w", 4, 2, 3, 3), trained("v", 4, 2, 3, 3)),
    nodes=(
        Node("Conv", ("x", "w"), ("a",), {"pads": (1, 1, 1, 1)}),
        Node("Relu", ("a",), ("r",)),
        Node("MaxPool", ("r",), ("p",), {"kernel_shape": (2, 2), "strides": (2, 2)}),
        Node("Conv", ("p", "v"), ("c",), {"pads": (1, 1, 1, 1), "group": 2}),
        Node("Flatten", ("c",), ("y",)),
    ),
    outputs={"y": "y", "p": "p"},
)
STATE = Graph(
    inputs=(given("x", "b", 3),),
    parameters=(trained("p", 3, frozen=True), trained("q", 3, frozen=True), trained("w", 3)),
    nodes=(Node("Mul", ("x", "w"), ("y",)), Node("Add", ("y", "p"), ("z",)), Node("Identity", ("x",), ("i",))),
    outputs={"z": "z", "p": "p", "i": "i"},
    updates={"p": "q", "q": "p"},
)


class Twins:
    """A planned model and one that is not, to which the same is done; what they return is compared and remembered."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.planned, self.plain = Model(graph), Model(graph, planned=False)
        self.graph = graph
        self.parameters = {p.name: self.draw.normal(size=p.type.shape) for p in graph.parameters}
        self.sums = {name: np.zeros_like(self.parameters[name]) for name in self.planned.trainable}
        self.passes: list[tuple[Pass, Pass]] = []
        self.returned: list[tuple[Array, Array]] = []

    def inputs(self, batch: int) -> dict[str, Array]:
        found = {}
        for each in self.graph.inputs:
            shape = [n if isinstance(n, int) else batch for n in each.type.shape]
            is_class = each.type.dtype.kind == "i"
            found[each.name] = self.draw.integers(0, 4, shape) if is_class else self.draw.normal(size=shape)
        return found

    def forward(self) -> None:
        batch, training = int(self.draw.choice([1, 2, 3, 17])), bool(self.draw.random() < 0.7)
        inputs = self.inputs(batch)
        found = self.planned.forward(inputs, self.parameters, training=training, key=(1, batch))
        frozen = {name: array.copy() for name, array in self.parameters.items()}
        wanted = self.plain.forward(inputs, frozen, training=training, key=(1, batch))
        assert (found.loss is None) == (wanted.loss is None)
        self.compare(found.outputs, wanted.outputs)
        self.compare(found.updates, wanted.updates)
        if training:
            self.passes.append((found, wanted))
            self.parameters = {**self.parameters, **{name: array.copy() for name, array in found.updates.items()}}

    def backward(self) -> None:
        if not self.passes:
            return
        found, wanted = self.passes[self.draw.integers(len(self.passes))]
        seeds: dict[str, Array] = {}
        if self.graph.loss is None or self.draw.random() < 0.4:
            names = self.draw.permutation(sorted(self.graph.outputs))[: self.draw.integers(1, 4)]
            seeds = {str(name): self.draw.normal(size=wanted.outputs[name].shape) for name in names}
        into = self.sums if self.draw.random() < 0.5 else None
        ours, theirs = self.planned.backward(found, seeds, ["x"], into), self.plain.backward(wanted, seeds, ["x"])
        self.compare(ours.parameters, theirs.parameters, remember=into is None)
        self.compare(ours.inputs, theirs.inputs)

    def drop(self) -> None:
        if self.passes:
            self.passes.pop(self.draw.integers(len(self.passes)))

    def step(self) -> None:
        if self.passes:
            self.parameters = {name: array * 0.9 for name, array in self.parameters.items()}
        else:
            for array in self.parameters.values():
                array *= 0.9

    def trim(self) -> None:
        self.planned.trim()

    def compare(self, found: Mapping[str, Array], wanted: Mapping[str, Array], *, remember: bool = True) -> None:
        assert found.keys() == wanted.keys()
        for name, array in found.items():
            np.testing.assert_allclose(array, wanted[name], rtol=1e-10, atol=1e-10, err_msg=name)
            if remember:
                self.returned.append((array, array.copy()))

    def check_that_nothing_changed(self) -> None:
        for array, as_returned in self.returned:
            np.testing.assert_array_equal(array, as_returned)


@contextmanager
def cramped(block: int, small: int, warm: int) -> Iterator[None]:
    """Works in small blocks, keeps little at hand, and binds arrays rather than copying them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "LARGE_BYTES", 1)
        patch.setattr(chains, "BLOCK_BYTES", block)
        patch.setattr(frame, "SMALL_BYTES", small)
        patch.setattr(model, "WARM_PLANS", warm)
        yield


@pytest.mark.parametrize("graph", [CLASSIFIER, WINDOWS, STATE], ids=["classifier", "windows", "state"])
@pytest.mark.parametrize(("block", "small", "warm"), [(1 << 17, 16_384, 4), (200, 0, 1), (64, 100, 2)])
def test_passes_in_any_order(graph: Graph, block: int, small: int, warm: int) -> None:
    with cramped(block, small, warm):
        for seed in range(4):
            twins = Twins(graph, seed)
            actions = [twins.forward] * 4 + [twins.backward] * 4 + [twins.drop] * 2 + [twins.step, twins.trim]
            for place in twins.draw.integers(len(actions), size=30):
                actions[place]()
            twins.check_that_nothing_changed()


def test_a_pass_that_fails_leaves_the_next_ones_right() -> None:
    twins = Twins(CLASSIFIER, 0)
    for batch in (5, 3, 5, 3):
        twins.forward()
        wrong = {**twins.inputs(batch), "t": np.full(batch, 9)}
        with pytest.raises(InvalidValue):
            twins.planned.forward(wrong, twins.parameters, training=True)
        twins.forward()
        twins.backward()
    twins.check_that_nothing_changed()


def test_ways_to_differentiate_a_pass_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BACKWARD_FRAMES", 1)
    twins = Twins(CLASSIFIER, 0)
    found = twins.planned.forward(twins.inputs(3), twins.parameters, training=True)
    assert isinstance(found.lease, frames.Lease)
    first = twins.planned.backward(found).parameters["w"]
    for name, array in found.outputs.items():
        twins.planned.backward(found, {name: np.ones_like(array)})
        assert len(found.lease._frames.backward) == 1
    np.testing.assert_array_equal(twins.planned.backward(found).parameters["w"], first)


def test_convolutions_of_inputs_are_prepared_once_for_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "SMALL_BYTES", 0)
    prepared: list[str] = []
    for name in ("Convolution", "ConvolutionKernelGradient"):
        monkeypatch.setattr(OPS[name], "prepare", _noting(prepared, name, OPS[name].prepare))
    twins = Twins(WINDOWS, 0)
    for _ in range(3):
        prepared.clear()
        found = twins.planned.forward(twins.inputs(17), twins.parameters, training=True)
        twins.planned.backward(found, {"y": np.ones_like(found.outputs["y"])}, into=twins.sums)
        del found  # so that the next pass has its memory
    assert prepared == []


def _noting(prepared: list[str], name: str, prepare: Any) -> Any:
    def noted(*arrays: Array, **options: Any) -> Any:
        prepared.append(name)
        return prepare(*arrays, **options)

    return noted
