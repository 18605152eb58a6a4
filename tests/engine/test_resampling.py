"""Resize and GridSample: against ONNX's reference implementation in every combination of modes, and their errors."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine.errors import EngineError, GraphError, InvalidAttribute, InvalidValue, ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model

Array = NDArray[Any]

TRANSFORMATIONS = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
ROI = np.array([0.1, -0.2, 0.8, 0.9], np.float32)


def run(op: str, feeds: dict[str, Array], constants: dict[str, Array], inputs: list[str], **attributes: Any) -> Array:
    declared = tuple(Input(name, TensorType(each.dtype, each.shape)) for name, each in feeds.items())
    model = Model(Graph(declared, (), constants, (Node(op, tuple(inputs), ("y",), attributes),), {"y": "y"}))
    return model.forward(feeds, {}, training=False).outputs["y"]


def reference(op: str, feeds: dict[str, Array], inputs: list[str], **attributes: Any) -> Array:
    onnx = pytest.importorskip("onnx")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    make = onnx.helper
    kinds = {name: make.np_dtype_to_tensor_dtype(each.dtype) for name, each in feeds.items()}
    declared = [make.make_tensor_value_info(name, kinds[name], each.shape) for name, each in feeds.items()]
    output = make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = make.make_graph([make.make_node(op, inputs, ["y"], **attributes)], "graph", declared, [output])
    (found,) = evaluator(make.make_model(graph, opset_imports=[make.make_opsetid("", 22)])).run(None, feeds)
    return np.asarray(found)


def resize(x: Array, **settings: Any) -> Array:
    given: dict[str, Array] = {
        name: np.asarray(settings.pop(name)) for name in ("roi", "scales", "sizes") if name in settings
    }
    names = ["x", *(name if name in given else "" for name in ("roi", "scales", "sizes"))]
    return run("Resize", {"x": x}, given, names, **settings)


@pytest.mark.parametrize("transformation", [*TRANSFORMATIONS, "tf_crop_and_resize"])
@pytest.mark.parametrize("target", [[0.7, 1.6], [7, 3], [2, 9]])
def test_resize_agrees_with_the_reference_in_all_modes(transformation: str, target: list[float]) -> None:
    if transformation == "tf_crop_and_resize" and target == [0.7, 1.6]:
        target = [3, 3]  # the reference does not crop when it is given scales
    x = np.random.default_rng(3).normal(size=(1, 2, 5, 4)).astype(np.float32)
    fixed: dict[str, Any] = {
        "coordinate_transformation_mode": transformation,
        "axes": (2, 3),
        "extrapolation_value": 7.0,
    }
    key, kind = ("scales", np.float32) if 0.7 in target else ("sizes", np.int64)
    constants = {"roi": ROI, key: np.array(target, kind)}
    names = ["x", "roi", "scales" if key == "scales" else "", *(["sizes"] if key == "sizes" else [])]
    flags = itertools.product(["linear", "cubic"], [0, 1], [0, 1])
    variants: list[dict[str, Any]] = [{"mode": mode, "antialias": a, "exclude_outside": e} for mode, a, e in flags]
    variants += [{"mode": "nearest", "nearest_mode": each} for each in NEAREST]
    for variant in variants:
        found = run("Resize", {"x": x}, constants, names, **fixed, **variant)
        wanted = reference("Resize", {"x": x, **constants}, names, **fixed, **variant)
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=str(variant))


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize(("image", "places"), [((2, 2, 3, 4), (2, 3, 2, 2)), ((1, 1, 3, 2, 4), (1, 2, 2, 2, 3))])
def test_grid_sample_agrees_with_the_reference_far_outside_the_image(
    image: tuple[int, ...], places: tuple[int, ...], align_corners: int, mode: str, padding_mode: str
) -> None:
    draw = np.random.default_rng(4)
    feeds = {"x": draw.normal(size=image).astype(np.float32), "grid": draw.uniform(-3, 3, places).astype(np.float32)}
    settings = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    found = run("GridSample", feeds, {}, ["x", "grid"], **settings)
    np.testing.assert_allclose(found, reference("GridSample", feeds, ["x", "grid"], **settings), atol=1e-5)


def test_crop_with_scales_has_the_size_of_the_part_times_the_scale() -> None:
    x = np.arange(9.0, dtype=np.float32)
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    found = resize(x, roi=[0.25, 0.75], scales=[1.2], **crop)
    np.testing.assert_allclose(found, np.linspace(2, 6, 5), rtol=1e-6)


def test_nearest_keeps_whole_numbers_exact() -> None:
    big = np.array([2**60, 2**60 + 1])
    np.testing.assert_array_equal(resize(big, scales=[2.0]), big.repeat(2))
    grid = np.array([[[[-0.5], [0.5], [3.0]]]], np.float32).reshape(1, 3, 1)
    found = run("GridSample", {"x": big.reshape(1, 1, 2), "grid": grid}, {}, ["x", "grid"], mode="nearest")
    np.testing.assert_array_equal(found, [[[2**60, 2**60 + 1, 0]]])


@pytest.mark.parametrize(
    ("settings", "error", "remedy"),
    [
        ({}, GraphError, "give one of them"),
        ({"scales": [2.0], "sizes": [4]}, GraphError, "give one of them"),
        ({"scales": [2.0, 1.0]}, ShapeMismatch, "one for each axis"),
        ({"scales": [0.0]}, InvalidValue, "give positive ones"),
        ({"sizes": [4], "mode": "bilinear"}, InvalidAttribute, "use nearest, linear, cubic"),
        ({"sizes": [4], "coordinate_transformation_mode": "tf_crop_and_resize"}, GraphError, "needs the input roi"),
    ],
)
def test_resize_says_what_is_wrong(settings: dict[str, Any], error: type[EngineError], remedy: str) -> None:
    with pytest.raises(error, match=remedy):
        resize(np.zeros(2, np.float32), **settings)


def test_grid_must_fit_the_image() -> None:
    feeds = {"x": np.zeros((1, 1, 2, 2), np.float32), "grid": np.zeros((1, 1, 1, 3), np.float32)}
    with pytest.raises(ShapeMismatch, match="positions in a place of the grid"):
        run("GridSample", feeds, {}, ["x", "grid"])
