"""Products in a precision below float32 are right to its rounding; all else is computed as it was."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine.precision_cases import PRECISIONS, PRODUCTS, assert_within_rounding, lowered

from backwire_server.engine.check import Sampling, check_gradients
from backwire_server.engine.graph import Attribute, DType, Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.narrow import BFLOAT16, HALF, SINGLE
from backwire_server.engine.precision import LOWERED
from backwire_server.engine.registry import OPS

Array = NDArray[Any]
DRAW = np.random.default_rng(3)


def named(precision: DType) -> str:
    return precision.name


@pytest.mark.parametrize("precision", PRECISIONS, ids=named)
@pytest.mark.parametrize("case", PRODUCTS)
def test_products_and_their_gradients_are_exact_but_for_rounding(case: str, precision: DType) -> None:
    assert_within_rounding(PRODUCTS[case], Model, precision)


def single(op: str, arrays: Mapping[str, Array | None], attributes: Mapping[str, Attribute], outputs: int = 1) -> Graph:
    """Returns a graph of one node, with an output for each of its outputs."""
    inputs = tuple(Input(n, TensorType(a.dtype, a.shape)) for n, a in arrays.items() if a is not None)
    names = tuple(f"y{at}" for at in range(outputs))
    node = Node(op, tuple(name if a is not None else "" for name, a in arrays.items()), names, attributes)
    return Graph(inputs, nodes=(node,), outputs={name: name for name in names})


def samples_of(op: str) -> list[tuple[Graph, dict[str, Array]]]:
    """Returns the samples of an operator as graphs in float32."""
    found = []
    for sample in OPS[op].samples:
        arrays: dict[str, Array | None] = {}
        for at, each in enumerate(sample.inputs):
            arrays[f"x{at}"] = each if each is None or each.dtype.kind != "f" else np.asarray(each, "f4")
        given = {name: array for name, array in arrays.items() if array is not None}
        found.append((single(op, arrays, sample.attributes, sample.n_outputs or 1), given))
    return found


@pytest.mark.parametrize("op", sorted(LOWERED))
def test_every_operator_with_products_keeps_its_types_and_about_its_values(op: str) -> None:
    for graph, values in samples_of(op):
        expected, found = (
            Model(each).forward(values, {}, training=True).outputs for each in (graph, lowered(graph, HALF))
        )
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_allclose(found[name], array, rtol=0.01, atol=0.01)


EXEMPT = {
    "coordinates": single("AffineGrid", {"theta": np.ones((1, 2, 3), "f4") / 3, "size": np.array([1, 1, 4, 5])}, {}),
    "an interpolation": single(
        "Resize",
        {"x": DRAW.normal(size=(1, 1, 5, 5)).astype("f4"), "roi": None, "scales": np.array([1, 1, 1.7, 1.7], "f4")},
        {"mode": "linear"},
    ),
    "a determinant": single("Det", {"x": DRAW.normal(size=(3, 3)).astype("f4")}, {}),
    "a Softmax": single("Softmax", {"x": DRAW.normal(size=(3, 3)).astype("f4")}, {}),
    "a sum": single("ReduceSum", {"x": DRAW.normal(size=(3, 3)).astype("f4")}, {}),
}
VALUES: dict[str, Array] = {
    "theta": np.full((1, 2, 3), 1 / 3, "f4"),
    "size": np.array([1, 1, 4, 5]),
    "scales": np.array([1, 1, 1.7, 1.7], "f4"),
}


@pytest.mark.parametrize("what", EXEMPT)
def test_other_operators_have_the_bits_of_float32(what: str) -> None:
    graph = EXEMPT[what]
    values = {
        each.name: VALUES.get(each.name, np.random.default_rng(1).normal(size=[int(d) for d in each.type.shape]))
        for each in graph.inputs
    }
    values = {name: array.astype("f4") if array.dtype.kind == "f" else array for name, array in values.items()}
    names = [each.name for each in graph.inputs if each.name in ("x", "theta")]
    found = []
    for each in (graph, lowered(graph)):
        model = Model(each)
        done = model.forward(values, {}, training=True)
        seed = {"y0": np.full_like(done.outputs["y0"], 0.7)}
        found.append((done.outputs["y0"].tobytes(), model.backward(done, seed, wrt=names).inputs[names[0]].tobytes()))
    assert found[0] == found[1]


def test_values_of_another_type_are_computed_in_that() -> None:
    for dtype in ("f8", "f2", "i4"):
        arrays: dict[str, Array | None] = {name: np.arange(6).reshape(2, 3).astype(dtype) for name in "ab"}
        graph = single("Einsum", arrays, {"equation": "ij,kj->ik"})
        values = {name: array * 300 for name, array in arrays.items() if array is not None}
        expected, found = (
            Model(each).forward(values, {}, training=False).outputs["y0"] for each in (graph, lowered(graph))
        )
        assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes())


X = Input("x", TensorType.of("float32", ("batch", 4)))
W = Parameter("w", TensorType.of("float32", (4, 4)))
REPEATED = Graph(
    inputs=(X,),
    parameters=(W,),
    nodes=(
        *(Node("MatMul", (f"h{at}" if at else "x", "w"), (f"h{at + 1}",)) for at in range(3)),
        Node("Mul", ("h3", "h3"), ("square",)),
        Node("ReduceMean", ("square",), ("l",), {"keepdims": 0}),
    ),
    outputs={"h": "h3"},
    loss="l",
)


def test_passes_keep_operands_in_the_precision_and_gradients_are_of_float32() -> None:
    nodes = (
        Node("MatMul", ("x", "w"), ("z",)),
        Node("Add", ("z", "x"), ("h",)),
        Node("MatMul", ("h", "w"), ("y",)),
        Node("ReduceMean", ("y",), ("l",), {"keepdims": 0}),
    )
    model = Model(lowered(Graph(inputs=(X,), parameters=(W,), nodes=nodes, loss="l")))
    values = {"w": DRAW.normal(size=(4, 4)).astype("f4")}
    done = model.forward({"x": DRAW.normal(size=(5, 4)).astype("f4")}, values, training=True)
    kept = [done.plan.program.types[name].dtype for name in done.plan.residuals]
    assert kept == [BFLOAT16]
    assert model.backward(done).parameters["w"].dtype == SINGLE


def test_a_pass_does_not_keep_both_a_value_and_its_rounding() -> None:
    nodes = (
        Node("MatMul", ("x", "w"), ("z",)),
        Node("Relu", ("z",), ("h",)),
        Node("MatMul", ("h", "w"), ("y",)),
        Node("ReduceMean", ("y",), ("l",), {"keepdims": 0}),
    )
    graph = Graph(inputs=(X,), parameters=(W,), nodes=nodes, loss="l")
    values, x = {"w": DRAW.normal(size=(4, 4)).astype("f4")}, DRAW.normal(size=(5, 4)).astype("f4")
    narrow, wide = (Model(each).forward({"x": x}, values, training=True) for each in (lowered(graph), graph))
    assert narrow.nbytes == wide.nbytes


def test_gradients_of_gradients_are_about_those_of_float32() -> None:
    nodes = (
        *REPEATED.nodes,
        Node("Gradient", ("x",), ("slope",), {"xs": ("x",), "y": "l"}),
        Node("ReduceSumSquare", ("slope",), ("penalty",), {"keepdims": 0}),
    )
    graph = Graph((X,), (W,), {}, nodes, loss="penalty")
    values, x = {"w": DRAW.normal(size=(4, 4)).astype("f4") / 2}, DRAW.normal(size=(5, 4)).astype("f4")
    found = []
    for each in (graph, lowered(graph, HALF)):
        model = Model(each)
        found.append(model.backward(model.forward({"x": x}, values, training=True)).parameters["w"])
    assert np.linalg.norm(found[1] - found[0]) < 0.01 * np.linalg.norm(found[0])


def test_the_gradient_check_looks_at_the_graph_in_full_precision() -> None:
    values, x = {"w": DRAW.normal(size=(4, 4)).astype("f4")}, DRAW.normal(size=(5, 4)).astype("f4")
    found = check_gradients(lowered(REPEATED), {"x": x}, values, Sampling(["w"], 16, 0), key=(0, 0))
    assert found.parameters[0].error < 1e-7


@pytest.mark.parametrize("dtype", PRECISIONS, ids=named)
def test_long_sums_of_short_numbers_do_not_stand_still(dtype: DType) -> None:
    x = np.ones((4096, 3), dtype)
    for op, expected in (("ReduceSum", 4096.0), ("ReduceMean", 1.0)):
        graph = single(op, {"x": x, "axes": np.array([0])}, {"keepdims": 0})
        for planned in (True, False):
            found = Model(graph, planned=planned).forward({"x": x, "axes": np.array([0])}, {}, training=False)
            assert found.outputs["y0"].dtype == dtype
            assert found.outputs["y0"].astype("f8").tolist() == [expected] * 3


@pytest.mark.parametrize("dtype", PRECISIONS, ids=named)
def test_a_gradient_with_many_contributions_is_rounded_once(dtype: DType) -> None:
    count = 64
    b = Parameter("b", TensorType.of(dtype, (3,)), frozen=False)
    nodes = (
        *(Node("Mul", (f"x{at}", "b"), (f"y{at}",)) for at in range(count)),
        Node("Sum", tuple(f"y{at}" for at in range(count)), ("total",)),
    )
    inputs = tuple(Input(f"x{at}", TensorType.of(dtype, (3,))) for at in range(count))
    model = Model(Graph(inputs, (b,), {}, nodes, {"total": "total"}))
    x = {item.name: np.full(3, 1 + at / 128, dtype) for at, item in enumerate(inputs)}
    done = model.forward(x, {"b": np.ones(3, dtype)}, training=True)
    found = model.backward(done, {"total": np.ones(3, dtype)}).parameters["b"]
    exact = np.sum([array.astype("f8") for array in x.values()], axis=0)
    assert found.tolist() == exact.astype(dtype).tolist()
