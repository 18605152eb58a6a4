"""Where parts of a batch are said to give what the batch gives, they do, for every operator and for drawn graphs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.parallel.graphs import engine_graph

import backwire as bw
from backwire_server.engine.dims import Dim, Symbolic
from backwire_server.engine.errors import EngineError, NotSplittable
from backwire_server.engine.graph import LOSS, Graph, Input, Node, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample
from backwire_server.parallel import split as split_module
from backwire_server.parallel.split import Split, joined

Array = NDArray[Any]
Axes = dict[int, int]

BATCH = Symbolic.of("batch")
MOST_WAYS = 2
MOST_AXES = 3
RANDOM = {"Bernoulli", "Dropout", "Multinomial", "RandomNormalLike", "RandomUniformLike"}
"""Whose numbers differ from part to part, so that other examples are given instead, and those of one stay."""

UNEQUAL = {"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"}
"""Whose examples may have weights, as the guide says."""

MEETING = {
    *("MaxRoiPool", "MaxUnpool", "NonMaxSuppression", "NonZero", "RoiAlign", "ScatterND", "Unique"),
    *("ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "Range", "Shape", "Size"),
    *("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"),
}
"""Which keep examples apart along no axis of their samples, or have none."""


def ways(sample: Sample) -> Iterator[tuple[Sample, Axes]]:
    """Yields along which axes of which inputs examples may lie, each time as many; axes of size 1 are made longer."""
    free = [
        (place, array)
        for place, array in enumerate(sample.inputs)
        if array is not None and place not in sample.static and array.ndim
    ]
    for size in sorted({size for _, array in free for size in array.shape if size}):
        places = [[(place, axis) for axis, each in enumerate(array.shape) if each == size] for place, array in free]
        found = [{place: axis} for each in places for place, axis in each]
        found += [{p: a for each in places for p, a in each if a == axis} for axis in range(MOST_AXES)]
        found += [dict(each) for each in islice(product(*filter(None, places)), MOST_WAYS)]
        for axes in {tuple(each.items()): each for each in found if each}.values():
            yield (longer(sample, axes) if size == 1 else sample), axes


def longer(sample: Sample, axes: Axes) -> Sample:
    """Returns the sample with three examples along these axes instead of one."""
    inputs = list(sample.inputs)
    for place, axis in axes.items():
        given = inputs[place]
        assert given is not None
        inputs[place] = np.concatenate([given, given[..., ::-1], given], axis)
    return replace(sample, inputs=tuple(inputs))


def graph_of(name: str, sample: Sample, axes: Axes) -> tuple[Graph, dict[str, Array]]:
    """Returns a graph of the operator and the inputs; one more has the batch as its first axis, as some must."""
    inputs: dict[str, Array] = {}
    constants: dict[str, Array] = {}
    declared = [Input("all", TensorType(np.dtype(np.int64), (BATCH,)))]
    names = []
    for place, array in enumerate(sample.inputs):
        names.append("" if array is None else f"x{place}")
        if array is None:
            continue
        if place in sample.static or (place not in axes and array.dtype.kind not in "f"):
            constants[f"x{place}"] = np.asarray(array)
            continue
        shape: list[Dim] = list(array.shape)
        if place in axes:
            shape[axes[place]] = BATCH
        declared.append(Input(f"x{place}", TensorType(array.dtype, tuple(shape))))
        inputs[f"x{place}"] = np.asarray(array)
    place, axis = next(iter(axes.items()))
    given = sample.inputs[place]
    assert given is not None
    inputs["all"] = np.arange(given.shape[axis])
    outputs = tuple(f"y{number}" for number in range(sample.n_outputs))
    node = Node(name, tuple(names), outputs, sample.attributes)
    return Graph(tuple(declared), (), constants, (node,), {each: each for each in outputs}), inputs


def run(graph: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    found = Model(graph).forward(inputs, {}, training=True, key=(1, 2))
    return found.outputs if found.loss is None else {**found.outputs, LOSS: np.array(found.loss)}


def check_parts(split: Split, graph: Graph, inputs: dict[str, Array], joints: Mapping[str, int | None]) -> None:
    """Compares outputs of parts, put together as is told, with those of the batch."""
    parts = split.parts(inputs, 2)
    try:
        whole, made = run(graph, inputs), [run(graph, part) for part in parts]
    except EngineError:
        return  # it takes no batch of this size, and says so
    for name, joint in joints.items():
        found = joined(joint, [each[name] for each in made], [split.size(part) for part in parts])
        np.testing.assert_allclose(found, whole[name], rtol=1e-4, atol=1e-6, err_msg=name)


def check_rows(graph: Graph, axes: Axes, inputs: dict[str, Array], joints: Mapping[str, int | None]) -> None:
    """Changes all examples but the first, and compares what comes out for that one."""
    others = {f"x{place}": np.roll(inputs[f"x{place}"][::-1], 1, axis) for place, axis in axes.items()}
    for place, axis in axes.items():
        first = (slice(None),) * axis + (slice(0, 1),)
        others[f"x{place}"][first] = inputs[f"x{place}"][first]
    before, after = run(graph, inputs), run(graph, {**inputs, **others})
    for name, joint in joints.items():
        assert joint is not None
        np.testing.assert_array_equal(before[name].take(0, joint), after[name].take(0, joint))


def joints_of(split: Split, graph: Graph, inputs: dict[str, Array]) -> dict[str, int | None]:
    """Returns those that are told of any outputs."""
    found: dict[str, int | None] = {}
    for name in graph.outputs:
        with contextlib.suppress(NotSplittable):
            found |= split.joints(inputs, [name])
    return found


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if not op.internal])
def test_an_operator_keeps_examples_apart_where_that_is_said_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "PROBES", (11, 13))  # what goes step by step along the batch is fast then
    seen = False
    for sample in OPS[name].samples:
        for longest, axes in ways(sample):
            graph, inputs = graph_of(name, longest, axes)
            try:
                split = Split(graph)
            except EngineError:
                continue  # it takes no batch there
            joints = joints_of(split, graph, inputs)
            seen |= any(joint is not None for joint in joints.values())
            if name in RANDOM:
                check_rows(graph, axes, inputs, joints)
            elif joints and name not in UNEQUAL:
                check_parts(split, graph, inputs, joints)
    assert seen == (name not in MEETING)


WEIGHT = bw.constant(np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3))
Make = Callable[[bw.Value, bw.Value], bw.Value]


def turned(x: bw.Value, order: tuple[int, int, int]) -> bw.Value:
    """Reads the elements in another order of axes: by some, examples stay together."""
    return bw.reshape(bw.tanh(bw.reshape(bw.transpose(x, order), (-1,))), (-1, 2, 3))


APART: tuple[Make, ...] = (
    lambda x, _: bw.tanh(x),
    lambda x, y: x * 0.5 + y,
    lambda x, y: x * y,
    lambda x, y: bw.maximum(x, y),
    lambda x, _: x @ WEIGHT,
    lambda x, _: bw.softmax(x, axis=1),
    lambda x, _: x - bw.mean(x, axis=2, keepdims=True),
    lambda x, y: bw.softmax(x @ bw.transpose(y, (0, 2, 1))) @ y,
    lambda x, _: bw.transpose(bw.tanh(bw.transpose(x, (2, 0, 1))), (1, 2, 0)),
    lambda x, _: turned(x, (0, 1, 2)),
    lambda x, _: turned(x, (0, 2, 1)),
    lambda x, y: bw.split(bw.concat([x, y], axis=1), 2, axis=1)[0],
)
MIXING: tuple[Make, ...] = (
    lambda x, _: bw.softmax(x, axis=0),
    lambda x, _: x - bw.mean(x, axis=0, keepdims=True),
    lambda x, _: x * bw.mean(x),
    lambda x, y: x * bw.max(y, axis=0, keepdims=True),
    lambda x, _: turned(x, (1, 0, 2)),
    lambda x, _: turned(x, (2, 1, 0)),
)


@settings(max_examples=150)
@given(st.data())
def test_parts_of_drawn_graphs_give_what_the_batch_gives_where_that_is_said(data: st.DataObject) -> None:
    values = [bw.input("x", ("batch", 2, 3)), bw.input("y", ("batch", 2, 3))]
    chosen = data.draw(st.lists(st.sampled_from(APART + MIXING), min_size=1, max_size=5))
    for make in chosen:
        x, y = (data.draw(st.sampled_from(values[-3:])) for _ in range(2))
        values.append(make(x, y))
    graph = engine_graph(bw.mean(values[-1] * values[-1]), last=values[-1], first=values[2])
    draw = np.random.default_rng(0)
    inputs = {item.name: draw.normal(size=(5, 2, 3)).astype(np.float32) for item in graph.inputs}
    joints: dict[str, int | None] = {}
    with contextlib.suppress(NotSplittable):
        split = Split(graph)
        joints = {**joints_of(split, graph, inputs), LOSS: None}
        check_parts(split, graph, inputs, joints)
    if not set(chosen) & set(MIXING):
        assert joints == {"first": 0, "last": 0, LOSS: None}
