"""A profile runs what a session runs, and says of each node what it and its gradient took."""

from typing import Any

import numpy as np
import pytest
from tests.engine.test_describe import NETWORK, described

from backwire_server.engine.errors import MissingInput
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.profile import Profile, profile
from backwire_server.engine.stopping import Stop, Stopped

NODES = ["z", "h", "y", "d", "s", "l"]


def draw(graph: Graph, **shapes: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    generator = np.random.default_rng(0)
    inputs = {name: generator.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    parameters = {each.name: generator.normal(size=each.type.shape).astype("f4") for each in graph.parameters}
    return inputs, parameters


def profiled(graph: Graph, passes: int = 3, **shapes: tuple[int, ...]) -> Profile:
    return profile(Model(graph), *draw(graph, **shapes), passes, key=(0, 0))


def test_work_is_told_of_each_node_and_of_its_gradient() -> None:
    nodes = described(NETWORK, x=(7, 4)).nodes
    assert list(nodes) == NODES
    assert (nodes["z"].forward, nodes["y"].forward) == (2 * 7 * 4 * 5, 2 * 7 * 5 * 2)
    assert 2 * 7 * 4 * 5 <= nodes["z"].backward < 2 * (2 * 7 * 4 * 5), "x has no gradient, so that of w1 alone"
    assert 2 * (2 * 7 * 5 * 2) <= nodes["y"].backward < 3 * (2 * 7 * 5 * 2), "those of h and of w2"
    assert nodes["h"].forward == 7 * 5
    assert nodes["h"].backward > 0


def test_the_work_of_all_nodes_is_that_of_the_pass() -> None:
    found = described(NETWORK, x=(7, 4))
    assert sum(each.forward for each in found.nodes.values()) == found.forward_flops
    assert sum(each.backward for each in found.nodes.values()) == found.backward_flops


def test_an_operator_of_several_kernels_is_one_node() -> None:
    x = Input("x", TensorType.of("float32", (3, 5)))
    w = Parameter("w", TensorType.of("float32", (3, 5)))
    nodes = (
        Node("Add", ("x", "w"), ("a",)),
        Node("Gelu", ("a",), ("g",)),
        Node("ReduceMean", ("g",), ("l",), {"keepdims": 0}),
    )
    found = described(Graph(inputs=(x,), parameters=(w,), nodes=nodes, loss="l")).nodes
    assert list(found) == ["a", "g", "l"]
    assert found["g"].forward > 3 * 5
    assert found["g"].backward > 3 * 5


def test_a_gradient_within_the_graph_belongs_to_its_node() -> None:
    x = Input("x", TensorType.of("float32", (4,)))
    w = Parameter("w", TensorType.of("float32", (4,)))
    nodes = (
        Node("Mul", ("x", "w"), ("p",)),
        Node("Tanh", ("p",), ("t",)),
        Node("Gradient", ("x", "t"), ("g",), {"xs": ("x",), "y": "t"}),
        Node("ReduceSum", ("g",), ("l",), {"keepdims": 0}),
    )
    found = described(Graph(inputs=(x,), parameters=(w,), nodes=nodes, loss="l")).nodes
    assert list(found) == ["p", "t", "g", "l"]
    assert found["g"].forward > 0
    assert found["g"].backward > 0


def test_every_node_that_computes_takes_time_both_ways() -> None:
    found = profiled(NETWORK, x=(7, 4), t=(7, 2))
    assert list(found.nodes) == NODES
    for name in ("z", "h", "y"):
        assert found.nodes[name].forward > 0
        assert found.nodes[name].backward > 0
    assert found.forward_seconds > 0
    assert found.backward_seconds > 0


def test_rows_that_run_in_blocks_are_told_apart() -> None:
    x = Input("x", TensorType.of("float32", (2000, 300)))
    w = Parameter("w", TensorType.of("float32", (2000, 300)))
    nodes = (
        Node("Mul", ("x", "w"), ("m",)),
        Node("Exp", ("m",), ("e",)),
        Node("Tanh", ("e",), ("t",)),
        Node("ReduceMean", ("t",), ("l",), {"keepdims": 0}),
    )
    found = profiled(Graph(inputs=(x,), parameters=(w,), nodes=nodes, loss="l"), passes=1, x=(2000, 300))
    assert all(found.nodes[name].forward > 0 for name in ("m", "e", "t"))


def test_a_graph_without_loss_is_differentiated_from_its_outputs() -> None:
    graph = Graph(NETWORK.inputs, NETWORK.parameters, {}, NETWORK.nodes[:3], {"y": "y"})
    found = profiled(graph, x=(7, 4))
    assert found.nodes["y"].backward > 0


def test_a_graph_of_integers_has_no_gradient() -> None:
    x = Input("x", TensorType.of("int64", (4,)))
    graph = Graph(inputs=(x,), nodes=(Node("Neg", ("x",), ("n",)),), outputs={"n": "n"})
    found = profile(Model(graph), {"x": np.arange(4)}, {}, 1, key=(0, 0))
    assert found.nodes["n"].forward > 0
    assert (found.nodes["n"].backward, found.backward_seconds) == (0, 0)


def test_what_is_given_is_not_changed_and_may_be_wrong() -> None:
    inputs, parameters = draw(NETWORK, x=(7, 4), t=(7, 2))
    before = {name: array.copy() for name, array in parameters.items()}
    profile(Model(NETWORK), inputs, parameters, 2, key=(0, 0))
    for name, array in before.items():
        np.testing.assert_array_equal(parameters[name], array)
    with pytest.raises(MissingInput):
        profile(Model(NETWORK), {}, parameters, 2, key=(0, 0))


def test_each_pass_is_admitted_with_its_gradient() -> None:
    admitted: list[int] = []
    given = draw(NETWORK, x=(7, 4), t=(7, 2))
    profile(Model(NETWORK), *given, 2, key=(0, 0), admit=lambda cost: admitted.append(cost.flops))
    assert admitted[::2] == [admitted[0]] * 3, "one to warm up, and two that are measured"
    assert admitted[0] > 0


class Whole(Model):
    by_node = False


@pytest.mark.parametrize("outputs", [{}, {"y": "y"}])
def test_a_model_that_runs_passes_as_a_whole_is_measured_so(outputs: dict[str, str]) -> None:
    loss, nodes = (None, NETWORK.nodes[:3]) if outputs else ("l", NETWORK.nodes)
    graph = Graph(NETWORK.inputs, NETWORK.parameters, {}, nodes, outputs, loss)
    shapes = {"x": (7, 4), **({} if outputs else {"t": (7, 2)})}
    found = profile(Whole(graph), *draw(graph, **shapes), 2, key=(0, 0))
    assert found.forward_seconds > 0 < found.backward_seconds
    assert {each.forward for each in found.nodes.values()} == {0}


def test_a_profile_ends_between_two_kernels() -> None:
    stop, admitted = Stop(), list[object]()

    def admit(cost: object) -> None:
        admitted.append(cost)
        stop.wanted = len(admitted) > 4

    with pytest.raises(Stopped):
        profile(Model(NETWORK), *draw(NETWORK, x=(7, 4), t=(7, 2)), 1_000, key=(0, 0), stop=stop, admit=admit)
