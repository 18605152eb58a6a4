"""Batches are cut along the axis that all inputs begin with, and graphs where that would change the result refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from tests.benchmarks import backwire_models, values
from tests.parallel.graphs import engine_form, engine_graph

import backwire as bw
from backwire_server.engine.dims import Symbolic
from backwire_server.engine.errors import NotSplittable
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.parallel.split import Split, joined


def predicted(x: bw.Value) -> bw.Value:
    return bw.dense(x, 2, name="top")


def split_of() -> Split:
    x, scale = bw.input("x", ("batch", 3)), bw.input("scale", (2,))
    y = predicted(x) * scale
    return Split(engine_graph(bw.mean(y * y), y=y, mean=bw.mean(y), turned=bw.transpose(y, (1, 0))))


@pytest.mark.parametrize(
    ("examples", "parts", "sizes"),
    [(8, 2, [4, 4]), (11, 3, [4, 4, 3]), (11, 4, [3, 3, 3, 2]), (2, 5, [1, 1]), (1, 3, [1]), (0, 3, [0]), (5, 1, [5])],
)
def test_parts_are_as_equal_as_can_be_and_none_is_empty(examples: int, parts: int, sizes: list[int]) -> None:
    split, rows = split_of(), np.arange(3.0 * examples, dtype=np.float32).reshape(-1, 3)
    scale = np.ones(2, np.float32)
    found = split.parts({"x": rows, "scale": scale}, parts)
    assert [split.size(each) for each in found] == sizes
    np.testing.assert_array_equal(np.concatenate([each["x"] for each in found]), rows)
    assert all(each["scale"] is scale for each in found), "what has no batch axis is the same in all parts"


def rows(examples: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.zeros((examples, 3), np.float32), "scale": np.ones(2, np.float32)}


def test_outputs_are_put_together_along_their_batch_axis_or_are_weighted_means() -> None:
    joints = split_of().joints(rows(3), ["y", "mean", "turned"])
    assert joints == {"y": 0, "mean": None, "turned": 1}
    parts = [np.ones((2, 2), np.float32), np.zeros((1, 2), np.float32)]
    np.testing.assert_array_equal(joined(0, parts, [2, 1]), [[1, 1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(joined(1, [part.T for part in parts], [2, 1]), [[1, 1, 0], [1, 1, 0]])
    assert joined(None, [np.array(1.0), np.array(4.0)], [2, 1]) == 2.0


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_means_of_numbers_of_two_bytes_are_formed_in_float32(dtype: type[Any]) -> None:
    mean = joined(None, [np.full(1, value, dtype) for value in (400.0, 400.0, 406.0)], [300, 300, 300])
    assert (mean.dtype, mean.tolist()) == (np.dtype(dtype), [402.0])


def twice(y: bw.Value) -> bw.Value:
    return bw.concat([y, y], axis=0)


def ranked(y: bw.Value) -> bw.Value:
    return bw.softmax(y, axis=0)


@pytest.mark.parametrize(("make", "told"), [(twice, "output 'made' is float32"), (ranked, "Softmax node .* mixes")])
def test_an_output_that_parts_do_not_give_is_refused_when_it_is_asked_for(
    make: Callable[[bw.Value], bw.Value], told: str
) -> None:
    y = predicted(bw.input("x", ("batch", 3)))
    split = Split(engine_graph(bw.mean(y), y=y, made=make(y)))
    assert split.joints(rows(3), ["y"]) == {"y": 0}
    with pytest.raises(NotSplittable, match=told) as caught:
        split.joints(rows(3), ["y", "made"])
    assert caught.value.field == "outputs"


def sums() -> bw.Value:
    return bw.sum(predicted(bw.input("x", ("batch", 3))))


def largest() -> bw.Value:
    return bw.max(predicted(bw.input("x", ("batch", 3))))


def normalized() -> bw.Value:
    return bw.mean(bw.batch_norm(predicted(bw.input("x", ("batch", 3))), name="norm"))


def of_fixed_size() -> bw.Value:
    return bw.mean(predicted(bw.input("x", (8, 3))))


def of_two_sizes() -> bw.Value:
    return bw.mean(predicted(bw.input("x", ("batch", 3)))) + bw.mean(bw.input("t", ("times", 2)))


def of_pairs() -> bw.Value:
    x, near = bw.input("x", ("batch", 3)), bw.input("near", ("batch", "batch"))
    return bw.mean(near @ predicted(x))


def contracted() -> bw.Value:
    y = predicted(bw.input("x", ("batch", 3)))
    return bw.mean(bw.transpose(y, (1, 0)) @ y)


def summed_entropy() -> bw.Value:
    y = predicted(bw.input("x", ("batch", 3)))
    return bw.softmax_cross_entropy(y, bw.input("t", ("batch",), dtype="int64"), reduction="sum")


def ranked_in_the_batch() -> bw.Value:
    return bw.mean(ranked(predicted(bw.input("x", ("batch", 3)))) ** 2)


def centered() -> bw.Value:
    y = predicted(bw.input("x", ("batch", 3)))
    return bw.mean((y - bw.mean(y, axis=0, keepdims=True)) ** 2)


def rooted() -> bw.Value:
    y = predicted(bw.input("x", ("batch", 3)))
    return bw.sqrt(bw.mean(y * y))


def numbered() -> bw.Value:
    y = predicted(bw.input("x", ("batch", 3)))
    (counted,) = bw.op("CumSum", y * 0 + 1, bw.constant(0), shape=y.shape)
    return bw.mean(y * counted)


@pytest.mark.parametrize(
    ("make", "told", "field"),
    [
        (ranked_in_the_batch, "Softmax node .* mixes the examples of a batch, which are along axis 0", "graph.nodes["),
        (centered, "Sub node .* combines examples with a mean of all", "graph.nodes["),
        (rooted, "Sqrt node .* makes no linear function of a mean of all examples", "graph.nodes["),
        (numbered, "CumSum node .* mixes the examples of a batch, which are along axis 0", "graph.nodes["),
        (sums, "makes one result of all examples along batch", "graph.nodes["),
        (largest, "makes one result of all examples along batch", "graph.nodes["),
        (contracted, "makes one result of all examples along batch", "graph.nodes["),
        (summed_entropy, "makes one result of all examples along batch", "graph.nodes["),
        (normalized, "each pass updates parameter 'norm", "graph.updates"),
        (of_fixed_size, "'x' is float32\\[8, 3\\]", "graph.inputs"),
        (of_two_sizes, "input 't' is float32\\[times, 2\\], but the first axis of others is batch", "graph.inputs[1]"),
        (of_pairs, "input 'near' has shape \\[batch, batch\\]", "graph.inputs["),
    ],
)
def test_a_graph_whose_batches_cannot_be_cut_is_refused_with_what_is_in_the_way(
    make: Callable[[], bw.Value], told: str, field: str
) -> None:
    with pytest.raises(NotSplittable, match=told) as caught:
        Split(engine_graph(make()))
    assert caught.value.field.startswith(field)


def squared() -> bw.Value:
    return bw.squared_error(predicted(bw.input("x", ("batch", 3))), bw.input("t", ("batch", 2)))


def classified() -> bw.Value:
    y = predicted(bw.input("x", ("batch", 3)))
    return bw.softmax_cross_entropy(y, bw.input("t", ("batch",), dtype="int64")) + 0.1 * bw.l2_penalty(
        bw.parameters_of(y)
    )


def of_sequences() -> bw.Value:
    y = bw.reshape(predicted(bw.input("x", ("batch", 4, 3))), (-1, 2))
    return bw.softmax_cross_entropy(y, bw.reshape(bw.input("t", ("batch", 4), dtype="int64"), (-1,)))


def of_weighted_classes() -> bw.Value:
    y, t = predicted(bw.input("x", ("batch", 3))), bw.input("t", ("batch",), dtype="int64")
    return bw.softmax_cross_entropy(y, t, class_weights=np.array([1, 2], np.float32))


@pytest.mark.parametrize("make", [squared, classified, of_sequences, of_weighted_classes])
def test_a_graph_whose_loss_is_a_mean_over_the_batch_is_taken(make: Callable[[], bw.Value]) -> None:
    split = Split(engine_graph(make()))
    assert split.size({"x": np.zeros((6, 3), np.float32)}) == 6


@pytest.mark.parametrize("model", values.MODELS)
def test_the_models_of_the_benchmarks_are_taken_unless_they_normalize_by_batches(model: str) -> None:
    graph, batch = engine_form(backwire_models.graph(model)), values.batch(model)
    if model == "ResNet-8":
        with pytest.raises(NotSplittable, match="as batch_norm does"):
            Split(graph)
    else:
        assert Split(graph).joints(batch, []) == {}


def test_a_batch_along_a_later_axis_is_cut_there() -> None:
    x, t = bw.input("x", (4, "batch", 3)), bw.input("t", ("batch", 2))
    split = Split(engine_graph(bw.squared_error(bw.mean(predicted(x), axis=0), t)))
    given = np.arange(4 * 5 * 3, dtype=np.float32).reshape(4, 5, 3)
    parts = split.parts({"x": given, "t": np.zeros((5, 2), np.float32)}, 2)
    assert [part["x"].shape for part in parts] == [(4, 3, 3), (4, 2, 3)]
    np.testing.assert_array_equal(np.concatenate([part["x"] for part in parts], axis=1), given)
    assert all(part["x"].flags.c_contiguous for part in parts)


def test_what_a_node_of_unknown_sizes_shares_with_others_is_followed() -> None:
    single, batch = np.dtype(np.float32), Symbolic.of("batch")
    nodes = (
        Node("RNN", ("x", "w", "r"), ("", "h"), {"layout": 1}),  # its batch is put second before its steps are counted
        Node("Transpose", ("x",), ("turned",), {"perm": (1, 0, 2)}),
        Node("Softmax", ("turned",), ("ranked",), {"axis": 1}),
        Node("ReduceMean", ("ranked",), ("loss",), {"keepdims": 0}),
    )
    weights = {"w": np.ones((1, 2, 3), np.float32), "r": np.ones((1, 2, 2), np.float32)}
    x = Input("x", TensorType(single, (batch, 4, 3)))
    with pytest.raises(
        NotSplittable, match="Softmax node 'ranked' mixes the examples of a batch, which are along axis 1"
    ):
        Split(Graph((x,), (), weights, nodes, {"h": "h"}, "loss"))
