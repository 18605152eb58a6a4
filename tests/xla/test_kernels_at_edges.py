"""JAX kernels where elements tie, are not numbers or are not acceptable, and on inputs without elements."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")

import jax
from tests.xla.kernels import Call, call, check

from backwire_server.engine import ops as _engine_ops  # noqa: F401  # fills the operator table
from backwire_server.engine.errors import InvalidValue
from backwire_server.xla.registry import NotTraceable, collecting, kernel_of, numerics, static_places

NAN, INF = np.nan, np.inf
EDGES = np.array([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.5])
WHOLE = np.array([7, -7, 0, 5, -128], np.int8)
SMALL: dict[str, Any] = {"strides": (2, 1), "pads": (1, 0, 0, 1), "dilations": (1, 2), "group": 2}


def test_elementwise_kernels_agree_on_what_is_not_a_number_and_on_the_infinite() -> None:
    ones = [
        "Relu",
        "LeakyRelu",
        "Elu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Erf",
        "Exp",
        "Abs",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
        "IsNaN",
        "IsInf",
        "Sqrt",
        "Log",
    ]
    pairs = [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Max",
        "Min",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Mod",
    ]
    grid = np.repeat(EDGES, EDGES.size), np.tile(EDGES, EDGES.size)
    check(
        *(call(name, EDGES) for name in ones),
        *(call(name, *grid) for name in pairs),
        call("Mod", *grid, fmod=1),
        call("Clip", EDGES, np.array(-1.5), np.array(1.5)),
        call("Clip", EDGES, np.array(2.0), np.array(1.0)),
        call("Masked", EDGES, EDGES > 0),
        call("Where", EDGES > 0, EDGES, -EDGES),
    )


def test_integers_are_divided_as_numpy_does_also_by_zero() -> None:
    by = np.array([2, 2, 0, 0, -1], np.int8)
    narrow = WHOLE.astype(np.uint8), np.array([3, 0, 1, 255, 2], np.uint8)
    check(
        *(call(name, a, b) for name in ("Div", "Mod") for a, b in ((WHOLE, by), narrow)),
        call("Mod", WHOLE, by, fmod=1),
        call("Add", WHOLE, WHOLE),
        call("Abs", WHOLE),
        call("ReduceMean", WHOLE),
        call("ReduceSum", WHOLE),
        call("ReduceL2", WHOLE[:4]),
        call("Pow", WHOLE, np.array([2, 3, 0, 1, 1], np.int8)),
        call("Pow", WHOLE, np.array([2.0, 2.0, 0.0, 1.0, 1.0])),
        call("Cast", np.array([300, -1, 65]), to="uint8"),
        call("Cast", np.array([2.9, -2.9, 0.0]), to="int32"),
        call("Cast", EDGES, to="bool"),
    )


def test_of_elements_that_tie_the_same_is_taken() -> None:
    x = np.array([[3.0, 5.0, 5.0, NAN], [1.0, 1.0, 0.0, 1.0]])
    check(
        *(call(name, x, axis=1, select_last_index=last) for name in ("ArgMax", "ArgMin") for last in (0, 1)),
        *(call("TopIndices", x, count=3, axis=1, largest=largest) for largest in (0, 1)),
        call("ReduceMax", x, np.array([1])),
        call("ReduceMin", np.array([[True, False], [True, True]]), np.array([1])),
        call("Softmax", np.array([[INF, 0.0], [-INF, -INF], [1e4, -1e4]]), axis=1),
        call("ReduceLogSumExp", np.array([[-INF, -INF], [1e4, 1e4], [INF, 0.0]]), np.array([1])),
    )


def test_inputs_without_elements_give_what_numpy_makes_of_them() -> None:
    none, table = np.zeros((0, 3)), np.zeros((3, 0))
    check(
        *(call(f"Reduce{each}", none, axes) for each in ("Sum", "Max", "Min", "L2") for axes in ([0], [1])),
        call("ReduceMean", none, [0]),
        call("ReduceMean", none.astype(np.int32), [0]),
        call("ReduceLogSumExp", none, [0]),
        call("Softmax", none, axis=1),
        call("MatMul", none, np.ones((3, 2))),
        call("MatMul", table, none),
        call("Gather", none, np.zeros(0, np.int64), axis=0),
        call("GatherElements", none, np.zeros((0, 3), np.int64)),
        call("ScatterElements", none, np.zeros((0, 3), np.int64), none),
        call("GatherGradient", none, np.zeros(0, np.int64), axis=0, size=4),
        call("SliceGradient", none, [2], [2], [0], shape=(4, 3)),
        call("TopIndices", none, count=0, axis=0, largest=1),
        call("CumSum", none, np.array(0), exclusive=1),
        call("Convolution", np.zeros((0, 2, 5, 5)), np.ones((4, 1, 2, 2)), **SMALL),
        call("Det", np.zeros((0, 2, 2))),
        call("Contraction", none, none, terms=("ij", "ij"), result="j"),
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_indices_of_every_type_may_count_from_the_end(dtype: str) -> None:
    x = np.arange(600.0).reshape(200, 3)
    indices = np.array([0, 2, 5 if dtype.startswith("u") else -1], dtype)
    check(call("Gather", x, indices), call("ScatterElements", x, indices[:, None], -np.ones((3, 1))))


OUTSIDE = [
    call("Gather", np.ones(3), np.array([0, 3])),
    call("Gather", np.ones(3), np.array([0, -4], np.int8)),
    call("Gather", np.ones(3), np.array([0, -1]), from_end=0),
    call("GatherGradient", np.ones(2), np.array([1, 7]), axis=0, size=3),
    call("GatherElements", np.ones((2, 2)), np.array([[0, 2]]), axis=1),
    call("GatherElementsGradient", np.ones((2, 1)), np.array([[0], [2]]), axis=1, shape=(2, 2)),
    call("GatherND", np.ones(3), np.array([[5]])),
    call("GatherNDGradient", np.ones(1), np.array([[5]]), batch_dims=0, shape=(3,)),
    call("ScatterElements", np.ones(3), np.array([0, 3]), np.ones(2)),
    call("ScatterND", np.ones(3), np.array([[3]]), np.ones(1)),
    call("ClassLabels", np.array([2, -1]), classes=3),
    call("ClassLabels", np.array([3, 2], np.uint8), classes=3),
    call("RegionForm", np.ones((1, 1, 2, 2)), *[np.ones((1, 1, 2))] * 2, np.array([3]), by=0, shape=(1, 1, 1, 1)),
    call("RegionMaxima", np.ones((1, 1, 2, 2)), np.array([[1.0, 0, 0, 1, 1]]), pooled_shape=(1, 1), spatial_scale=1.0),
    call("RegionWeights", np.zeros(1), np.array([1e6]), cells=1, ratio=0, length=4, n_outputs=3),
]


@pytest.mark.parametrize("wrong", OUTSIDE, ids=lambda each: each.name)
def test_an_element_that_numpy_refuses_is_told_with_the_same_words(wrong: Call) -> None:
    with pytest.raises(InvalidValue) as expected:
        wrong.by_numpy()
    messages = []

    def run(given: list[Any]) -> list[tuple[Any, Any]]:
        with collecting() as faults:
            wrong.by_jax(given)
        messages.extend(faults)
        return [(fault.wrong, fault.element) for fault in faults]

    with numerics():
        found = jax.jit(run)([wrong.inputs[place] for place in wrong.free])
    told = [str(f.error(np.asarray(e)[()])) for f, (is_wrong, e) in zip(messages, found, strict=True) if is_wrong]
    assert told == [str(expected.value)]


def test_an_index_that_is_known_is_refused_before_the_program_runs() -> None:
    with numerics(), pytest.raises(InvalidValue, match=r"index 3 is outside \[-3, 2\]; correct the indices"):
        jax.eval_shape(lambda x: kernel_of("Gather")(x, np.array([0, 3]), axis=0, from_end=1), np.ones(3))


def test_an_index_that_is_one_known_number_picks_a_slice() -> None:
    with numerics():
        found = jax.jit(lambda x: kernel_of("Gather")(x, np.array(-1), axis=0, from_end=1))(
            np.arange(6.0).reshape(3, 2)
        )
    np.testing.assert_array_equal(found, [4.0, 5.0])


def test_what_a_shape_depends_on_must_be_known_before_the_program_runs() -> None:
    assert static_places("Reshape") == (1,)
    with numerics(), pytest.raises(NotTraceable, match="Reshape has to know input 1 before it runs"):
        jax.eval_shape(lambda x, shape: kernel_of("Reshape")(x, shape, allowzero=0), np.ones(4), np.array([2, 2]))


def test_kernels_of_networks_keep_brain_floats() -> None:
    draws = np.random.default_rng(3)
    x, w = (draws.normal(size=shape).astype("bfloat16") for shape in ((4, 8), (8, 3)))
    image, kernels = (draws.normal(size=shape).astype("bfloat16") for shape in ((2, 2, 5, 5), (4, 1, 2, 2)))
    check(
        *(call(name, x) for name in ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "ReduceSum", "ReduceMean", "ReduceMax")),
        *(call(name, x, axis=1) for name in ("Softmax", "LogSoftmax")),
        *(call(name, x, x[0]) for name in ("Add", "Mul", "Div", "Max")),
        call("MatMul", x, w),
        call("Convolution", image, kernels, **SMALL),
        call("MaxPooling", image, kernel=(2, 2), strides=(2, 2), pads=(0,) * 4, dilations=(1, 1)),
        call("Cast", x, to="float32"),
        call("Cast", x.astype(np.float32), to="bfloat16"),
    )
