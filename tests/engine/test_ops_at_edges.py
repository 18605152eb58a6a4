"""Results and gradients where formulas divide by zero, elements tie, or a mode decides."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine.errors import EngineError, InvalidValue, ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model

Array = NDArray[Any]


def run(
    op: str, *inputs: Any, training: bool = True, outputs: int = 1, **attributes: Any
) -> tuple[list[Array], dict[str, Array]]:
    """Returns the outputs of one node and the gradients of the sum of the first output by its float inputs."""
    feeds = {f"x{index}": np.asarray(each) for index, each in enumerate(inputs)}
    names = tuple(str(index) for index in range(outputs))
    declared = tuple(Input(name, TensorType(each.dtype, each.shape)) for name, each in feeds.items())
    model = Model(Graph(declared, (), {}, (Node(op, tuple(feeds), names, attributes),), {n: n for n in names}))
    done = model.forward(feeds, {}, training=training)
    found = [done.outputs[name] for name in names]
    if not training or found[0].dtype.kind != "f":
        return found, {}
    floats = [name for name, each in feeds.items() if each.dtype.kind == "f"]
    return found, model.backward(done, {"0": np.ones_like(found[0])}, wrt=floats).inputs


def test_determinant_has_a_gradient_at_singular_matrices() -> None:
    (value,), gradients = run("Det", [[1.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(value, 0.0, atol=1e-12)
    np.testing.assert_allclose(gradients["x0"], [[4.0, -2.0], [-2.0, 1.0]], atol=1e-12)


def test_product_has_the_gradient_of_the_other_factors_where_one_is_zero() -> None:
    _, gradients = run("ReduceProd", [2.0, 0.0, 3.0])
    np.testing.assert_array_equal(gradients["x0"], [0.0, 6.0, 0.0])
    _, gradients = run("CumProd", [0.0, 2.0, 3.0], np.array(0))
    np.testing.assert_array_equal(gradients["x0"], [9.0, 0.0, 0.0])


@pytest.mark.parametrize("updates", [[0.0, 3.0], [0.0, 0.0], [2.0, 3.0]])
def test_scatter_by_product_has_the_gradient_of_the_other_factors(updates: list[float]) -> None:
    indices = np.array([1, 1])
    (value,), gradients = run("ScatterElements", [5.0, 7.0], indices, updates, reduction="mul")
    a, b = updates
    np.testing.assert_array_equal(value, [5.0, 7.0 * a * b])
    np.testing.assert_array_equal(gradients["x0"], [1.0, a * b])
    np.testing.assert_array_equal(gradients["x2"], [7.0 * b, 7.0 * a])


def test_scatter_by_maximum_shares_the_gradient_among_those_that_tie() -> None:
    (value,), gradients = run("ScatterND", [1.0, 4.0], np.array([[1], [1], [0]]), [4.0, 4.0, 0.5], reduction="max")
    np.testing.assert_array_equal(value, [1.0, 4.0])
    np.testing.assert_allclose(gradients["x0"], [1.0, 1 / 3])
    np.testing.assert_allclose(gradients["x2"], [1 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ReduceL2", {}),
        ("LpPool", {"kernel_shape": (2,)}),
        ("GlobalLpPool", {"p": 3}),
        ("LpNormalization", {}),
    ],
)
def test_norms_of_zeros_have_a_finite_gradient(op: str, attributes: dict[str, Any]) -> None:
    (value,), gradients = run(op, np.zeros((1, 1, 4)), **attributes)
    assert not value.any()
    assert np.isfinite(gradients["x0"]).all()


def test_log_sum_exp_neither_overflows_nor_vanishes() -> None:
    (value,), gradients = run("ReduceLogSumExp", [1e4, 1e4, -np.inf])
    np.testing.assert_allclose(value, [1e4 + np.log(2.0)])
    np.testing.assert_allclose(gradients["x0"], [0.5, 0.5, 0.0])


def test_batch_normalization_uses_the_batch_in_training_only() -> None:
    x = np.array([[1.0, 10.0], [3.0, 30.0]])
    statistics = (np.ones(2), np.zeros(2), np.array([5.0, 6.0]), np.array([4.0, 9.0]))
    options: dict[str, Any] = {"outputs": 3, "training_mode": 1, "epsilon": 0.0, "momentum": 0.25}
    (y, mean, variance), _ = run("BatchNormalization", x, *statistics, **options)
    np.testing.assert_allclose(y, [[-1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_allclose(mean, 0.25 * statistics[2] + 0.75 * np.array([2.0, 20.0]))
    np.testing.assert_allclose(variance, 0.25 * statistics[3] + 0.75 * np.array([1.0, 100.0]))
    (y, mean, variance), _ = run("BatchNormalization", x, *statistics, training=False, **options)
    np.testing.assert_allclose(y, (x - statistics[2]) / np.sqrt(statistics[3]))
    np.testing.assert_array_equal(mean, statistics[2])
    np.testing.assert_array_equal(variance, statistics[3])


def test_half_precision_is_normalised_in_single() -> None:
    x = (np.arange(4096) % 3 + 1000).astype(np.float16)[None]
    (y,), _ = run("LayerNormalization", x, np.ones(4096, np.float16))
    wide = x.astype(np.float64)
    np.testing.assert_allclose(y, (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5), atol=2e-3)
    assert y.dtype == np.float16


@pytest.mark.parametrize(
    ("op", "attributes", "slope"),
    [
        ("Relu", {}, 0.0),
        ("Abs", {}, 0.0),
        ("LeakyRelu", {"alpha": 0.2}, 0.2),
        ("Elu", {"alpha": 0.3}, 0.3),
        ("Selu", {"alpha": 2.0, "gamma": 3.0}, 6.0),
        ("Celu", {"alpha": 0.3}, 1.0),
        ("ThresholdedRelu", {"alpha": 0.0}, 0.0),
    ],
)
def test_at_its_kink_an_activation_has_the_slope_that_pytorch_gives_it(
    op: str, attributes: dict[str, Any], slope: float
) -> None:
    _, gradients = run(op, [0.0, -0.0], **attributes)
    np.testing.assert_allclose(gradients["x0"], [slope, slope])


def test_at_its_kink_prelu_has_the_slope_of_its_negative_side() -> None:
    _, gradients = run("PRelu", [0.0, -0.0], [0.2, 0.3])
    np.testing.assert_array_equal(gradients["x0"], [0.2, 0.3])
    np.testing.assert_array_equal(gradients["x1"], [0.0, 0.0])


def test_narrow_indices_count_from_the_end_of_long_axes() -> None:
    (found,), _ = run("Gather", np.arange(200.0), np.array([-1, 5], np.int8))
    np.testing.assert_array_equal(found, [199.0, 5.0])


def test_top_k_takes_the_first_of_equal_elements() -> None:
    (values, places), _ = run("TopK", [3.0, 5.0, 5.0, 1.0, 1.0], np.array([3]), outputs=2)
    np.testing.assert_array_equal(values, [5.0, 5.0, 3.0])
    np.testing.assert_array_equal(places, [1, 2, 0])
    (_, places), _ = run("TopK", [3.0, 1.0, 1.0], np.array([2]), outputs=2, largest=0)
    np.testing.assert_array_equal(places, [1, 2])


def test_results_whose_size_depends_on_elements_follow_them_from_pass_to_pass() -> None:
    x = TensorType.of(np.float64, ("n",))
    model = Model(Graph((Input("x", x),), (), {}, (Node("NonZero", ("x",), ("y",)),), {"y": "y"}))
    for values, expected in (([0.0, 2.0, 3.0], [[1, 2]]), ([1.0, 0.0, 0.0], [[0]]), ([0.0, 0.0], [[]])):
        found = model.forward({"x": np.array(values)}, {}, training=False).outputs["y"]
        np.testing.assert_array_equal(found, np.array(expected, np.int64))


def test_pooling_indices_bring_the_elements_back_where_they_came_from() -> None:
    x = np.random.default_rng(3).uniform(1.0, 2.0, (2, 3, 4, 6))
    (y, places), _ = run("MaxPool", x, kernel_shape=(2, 3), strides=(2, 3), outputs=2)
    np.testing.assert_array_equal(x.reshape(-1)[places], y)
    (restored,), gradients = run("MaxUnpool", y, places, kernel_shape=(2, 3), strides=(2, 3))
    np.testing.assert_array_equal(restored, np.where(np.isin(x, y), x, 0.0))
    np.testing.assert_array_equal(gradients["x0"], np.ones_like(y))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "error", "remedy"),
    [
        ("Tile", ([1.0, 2.0], np.array([1, 2])), {}, ShapeMismatch, "needs 1 entries"),
        ("Einsum", ([[1.0]], [1.0]), {"equation": "ijk,k"}, ShapeMismatch, "does not name the 2 axes"),
        ("Einsum", ([1.0], [1.0]), {"equation": "i"}, EngineError, "1 terms for 2 inputs"),
        ("TopK", ([1.0, 2.0], np.array([3])), {}, ShapeMismatch, "has 2 elements"),
        ("GatherND", ([1.0, 2.0], np.array([[2]])), {}, InvalidValue, "correct the indices"),
        ("GroupNormalization", (np.ones((1, 4, 2)), np.ones(4), np.ones(4)), {"num_groups": 3}, EngineError, "divide"),
        ("ScatterND", ([1.0], np.array([[0]]), [[2.0]]), {}, ShapeMismatch, "rank"),
        ("ConvTranspose", (np.ones((1, 2, 3)), np.ones((3, 1, 2))), {}, ShapeMismatch, "must be equal"),
        ("DepthToSpace", (np.ones((1, 3, 2, 2)),), {"blocksize": 2}, ShapeMismatch, "do not make blocks"),
        ("Det", (np.ones((2, 3)),), {}, ShapeMismatch, "must be equal"),
    ],
)
def test_what_does_not_fit_is_a_typed_error(
    op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], error: type[Exception], remedy: str
) -> None:
    with pytest.raises(error, match=remedy):
        run(op, *inputs, **attributes)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("Slice", ([1.0, 2.0], 0, 1)),
        ("Pad", ([1.0, 2.0], [[1], [1]])),
        ("Tile", ([1.0, 2.0], 2)),
        ("Expand", ([1.0, 2.0], [[2]])),
        ("TopK", ([1.0, 2.0], [])),
        ("CumSum", (1.0, 0)),
    ],
)
def test_integers_of_a_wrong_shape_are_named_and_never_a_defect(op: str, inputs: tuple[Any, ...]) -> None:
    arrays = [np.asarray(inputs[0]), *(np.asarray(each, np.int64) for each in inputs[1:])]
    with pytest.raises(EngineError, match=f"{op} node"):
        run(op, *arrays)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("op", ["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"])
@pytest.mark.parametrize("weight", [(), ([1.0, 2.0, 3.0],)])
def test_a_label_that_is_no_class_is_refused_unless_it_is_ignored(
    op: str, label: int, weight: tuple[list[float], ...]
) -> None:
    scores, labels = np.log([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]), np.array([1, label])
    with pytest.raises(InvalidValue, match=f"label {label} is no class of 0 to 2; correct it, or .* ignore_index"):
        run(op, scores, labels, *weight)
    (value,), _ = run(op, scores, labels, *weight, ignore_index=label)
    np.testing.assert_allclose(value, -np.log(0.3))
    with pytest.raises(InvalidValue, match=f"label {label} is no class"):
        run(op, scores, labels, *weight, ignore_index=-100)
