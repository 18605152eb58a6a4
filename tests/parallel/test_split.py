"""Batches are cut along the axis that all inputs begin with, and graphs where that would change the result refused."""

from collections.abc import Callable

import numpy as np
import pytest

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.errors import NotSplittable
from backwire_server.engine.graph import Graph
from backwire_server.messages.session import session_spec
from backwire_server.parallel.split import Split
from backwire_server.sessions.limits import Limits


def engine_graph(loss: bw.Value, **outputs: bw.Value) -> Graph:
    """The graph as the engine has it."""
    graph = bw.graph(loss=loss, outputs=outputs)
    return session_spec(pb.CreateSessionRequest(graph=graph.proto), Limits()).graph


def predicted(x: bw.Value) -> bw.Value:
    return bw.dense(x, 2, name="top")


def split_of(**outputs: bw.Value) -> Split:
    x, scale = bw.input("x", ("batch", 3)), bw.input("scale", (2,))
    y = predicted(x) * scale
    return Split(engine_graph(bw.mean(y * y), y=y, mean=bw.mean(y), **outputs))


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


def test_outputs_are_rows_one_after_another_or_weighted_means() -> None:
    split = split_of()
    rows = [np.ones((2, 2), np.float32), np.zeros((1, 2), np.float32)]
    np.testing.assert_array_equal(split.joined("y", rows, [2, 1]), [[1, 1], [1, 1], [0, 0]])
    assert split.joined("mean", [np.float32(1), np.float32(4)], [2, 1]) == np.float32(2)  # type: ignore[list-item]


def test_an_output_that_cannot_be_put_together_is_refused_by_its_name() -> None:
    x = bw.input("x", ("batch", 3))
    y = predicted(x)
    split = Split(engine_graph(bw.mean(y), y=y, turned=bw.transpose(y, (1, 0))))
    split.check_outputs(["y"])
    with pytest.raises(NotSplittable, match="output 'turned' is float32") as caught:
        split.check_outputs(["y", "turned"])
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


@pytest.mark.parametrize(
    ("make", "told", "field"),
    [
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


@pytest.mark.parametrize("make", [squared, classified, of_sequences])
def test_a_graph_whose_loss_is_a_mean_over_the_batch_is_taken(make: Callable[[], bw.Value]) -> None:
    split = Split(engine_graph(make()))
    assert split.size({"x": np.zeros((6, 3), np.float32)}) == 6
