"""Operators whose products are computed in a precision below float32, and how far from float64 they may be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.engine.graph import Attribute, DType, Graph, Input, Node, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.narrow import BFLOAT16, HALF

Array = NDArray[Any]
MakeModel = Callable[[Graph], Model]

UNITS = {BFLOAT16: 2.0**-8, HALF: 2.0**-11}
"""Half the spacing of the numbers after 1, by precision."""

PRECISIONS = tuple(UNITS)


@dataclass(frozen=True)
class Product:
    """A node that is linear in each of its inputs `x0`, `x1`, ..., of these shapes."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def draw(self) -> dict[str, Array]:
        """Returns the same inputs each time, in float32."""
        draw = np.random.default_rng(len(self.op))
        return {f"x{at}": draw.normal(size=shape).astype("f4") for at, shape in enumerate(self.shapes)}

    def graph(self, dtype: Any, precision: DType) -> Graph:
        """Returns the node as a graph whose output is `y`."""
        inputs = tuple(Input(f"x{at}", TensorType.of(dtype, shape)) for at, shape in enumerate(self.shapes))
        node = Node(self.op, tuple(each.name for each in inputs), ("y",), self.attributes)
        return Graph(inputs, nodes=(node,), outputs={"y": "y"}, precision=precision)


PRODUCTS = {
    "a matrix": Product("MatMul", ((7, 300), (300, 5))),
    "matrices": Product("MatMul", ((3, 2, 4, 40), (2, 40, 3))),
    "one matrix for a batch": Product("MatMul", ((3, 4, 40), (40, 3))),
    "rows": Product("MatMul", ((40,), (40, 3))),
    "Gemm": Product("Gemm", ((30, 4), (5, 30)), {"transA": 1, "transB": 1}),
    "images": Product("Conv", ((2, 4, 6, 5), (4, 2, 3, 3)), {"group": 2, "pads": (1, 1, 1, 1), "strides": (2, 1)}),
    "images, transposed": Product("ConvTranspose", ((2, 4, 3, 3), (4, 2, 2, 2)), {"strides": (2, 2)}),
    "an equation": Product("Einsum", ((4, 9), (9, 5)), {"equation": "ij,jk->ik"}),
}


def computed(
    product: Product, make: MakeModel, dtype: Any, precision: DType, values: Mapping[str, Array], seed: Array
) -> dict[str, Array]:
    """Returns the output and the gradients of all inputs, by the output's gradient."""
    model = make(product.graph(dtype, precision))
    done = model.forward({name: array.astype(dtype) for name, array in values.items()}, {}, training=True)
    gradients = model.backward(done, {"y": seed.astype(dtype)}, wrt=list(values)).inputs
    return {"y": done.outputs["y"], **{f"gradient of {name}": array for name, array in gradients.items()}}


def assert_within_rounding(product: Product, make: MakeModel, precision: DType) -> None:
    """Holds results and gradients against float64, element by element.

    With u, the unit of the precision, both operands are off by u of themselves, and so is the sum; gradients
    that are summed over a batch are rounded once more. The error is at most (1 + u)^4 - 1 times the same sum over
    absolute values, and a trifle for adding in float32.
    """
    values = product.draw()
    shape = Model(product.graph("f4", np.dtype("f4"))).forward(values, {}, training=False).outputs["y"].shape
    seed = np.random.default_rng(1).normal(size=shape)
    found = computed(product, make, "f4", precision, values, seed)
    exact = computed(product, Model, "f8", precision, values, seed.astype("f4"))
    sizes = computed(product, Model, "f8", precision, {k: np.abs(v) for k, v in values.items()}, np.abs(seed))
    for name, array in found.items():
        assert array.dtype == np.float32
        assert np.all(np.abs(array - exact[name]) <= 4.1 * UNITS[precision] * sizes[name]), name
    assert not np.array_equal(found["y"], exact["y"].astype("f4")), "nothing was rounded"


def lowered(graph: Graph, precision: DType = BFLOAT16) -> Graph:
    """Returns the graph in a precision."""
    return replace(graph, precision=precision)
