"""Products in a precision below float32 mean the same on the JAX executor."""

import numpy as np
import pytest

pytest.importorskip("jax")

from tests.engine.precision_cases import PRECISIONS, PRODUCTS, UNITS, assert_within_rounding, lowered

from backwire_server.engine.graph import DType, Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model
from backwire_server.xla.model import XlaModel

LAYERS = 3
NETWORK = Graph(
    inputs=(Input("x", TensorType.of("float32", ("batch", 8))), Input("t", TensorType.of("int64", ("batch",)))),
    parameters=tuple(Parameter(f"w{at}", TensorType.of("float32", (8, 8))) for at in range(LAYERS)),
    nodes=(
        *(
            node
            for at in range(LAYERS)
            for node in (
                Node("Gemm", (f"h{at - 1}" if at else "x", f"w{at}"), (f"z{at}",)),
                Node("Tanh", (f"z{at}",), (f"h{at}",)),
            )
        ),
        Node("SoftmaxCrossEntropyLoss", (f"h{LAYERS - 1}", "t"), ("l",)),
    ),
    outputs={"h": f"h{LAYERS - 1}"},
    loss="l",
)


def named(precision: DType) -> str:
    return precision.name


@pytest.mark.parametrize("precision", PRECISIONS, ids=named)
@pytest.mark.parametrize("case", PRODUCTS)
def test_products_and_their_gradients_are_exact_but_for_rounding(case: str, precision: DType) -> None:
    assert_within_rounding(PRODUCTS[case], XlaModel, precision)


@pytest.mark.parametrize("precision", PRECISIONS, ids=named)
def test_both_executors_agree_on_a_network_within_the_roundings_of_its_products(precision: DType) -> None:
    draw = np.random.default_rng(2)
    values = {item.name: (draw.normal(size=(8, 8)) / np.sqrt(8)).astype("f4") for item in NETWORK.parameters}
    inputs = {"x": draw.normal(size=(32, 8)).astype("f4"), "t": draw.integers(8, size=32)}
    found = []
    for make in (Model, XlaModel):
        model = make(lowered(NETWORK, precision))
        done = model.forward(inputs, values, training=True)
        found.append((done, model.backward(done).parameters))
    (first, gradients), (second, others) = found
    assert second.loss == pytest.approx(first.loss, rel=3 * LAYERS * UNITS[precision])
    for name, array in gradients.items():
        assert others[name].dtype == np.float32
        assert np.linalg.norm(others[name] - array) <= 2 * 3 * LAYERS * UNITS[precision] * np.linalg.norm(array)
