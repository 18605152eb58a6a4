"""A program in a frame gives the numbers that calling kernel after kernel gives, however often it is run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backwire_server.engine import chains
from backwire_server.engine.builder import RANDOM_KEY, Builder
from backwire_server.engine.differentiate import differentiate
from backwire_server.engine.errors import InvalidValue
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.memory import Workspace
from backwire_server.engine.program import Program
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample
from backwire_server.engine.schedule import Chain
from backwire_server.engine.values import O, Value

UNARY = ("Exp", "Tanh", "Sigmoid", "Relu", "Neg", "Abs", "Softplus", "Identity")
BINARY = ("Add", "Sub", "Mul", "Max", "Where")


def agree(program: Program, feeds: Mapping[str, Array], workspace: Workspace | None = None) -> None:
    """Runs the program in a frame three times: with these feeds, with others, and with these again."""
    frame = program.frame(workspace or Workspace())
    others = {name: np.array(array) for name, array in feeds.items()}
    for values in (feeds, others, feeds):
        expected = program.run(values)
        for name, wanted, found in zip(program.targets, expected, frame.run(values), strict=True):
            assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), name
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12, err_msg=name)


def test_every_operator_and_its_gradient(op_name: str, sample: Sample, bench_of: Callable[..., Any]) -> None:
    bench = bench_of(op_name, sample)
    targets = [value.name for value in bench.outputs]
    if OPS[op_name].gradient or OPS[op_name].expand:
        seeds = {
            value.name: bench.builder.constant(np.random.default_rng(1).normal(size=value.sizes))
            for value in bench.outputs
            if value.dtype.kind == "f"
        }
        gradients = differentiate(bench.builder, seeds, list(bench.leaves))
        targets += [value.name for value in gradients.values() if value is not None]
    feeds = {**bench.leaves, RANDOM_KEY: np.array([3, 4], np.uint64)}
    program = Program(bench.builder, targets, feeds.keys())
    agree(program, {name: feeds[name] for name in program.feeds})


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Builder, list[Value], dict[str, Array]]:
    """Draws layers of elementwise operators, products, reductions and views over a few matrices, with gradients."""
    builder, numbers = Builder(training=True), np.random.default_rng(draw(st.integers(0, 99)))
    size = draw(st.sampled_from([1, 2, 3, 40]))
    feeds = {name: numbers.normal(size=(size, size)) / size for name in ("a", "b")}
    values = [builder.leaf(name, TensorType(array.dtype, array.shape)) for name, array in feeds.items()]
    for _ in range(draw(st.integers(1, 12))):
        x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        kind = draw(st.sampled_from([*UNARY, *BINARY, "MatMul", "Transpose", "Reshape", "ReduceSum", "Slice"]))
        values.append(_layer(kind, x, y, size))
    targets = draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    seeds = {values[-1].name: builder.constant(np.ones(values[-1].sizes))}
    found = differentiate(builder, seeds, list(feeds))
    return builder, [*targets, *(value for value in found.values() if value is not None)], feeds


def _layer(kind: str, x: Value, y: Value, size: int) -> Any:
    if kind == "Where":
        return O.Where(x > y, x, y)
    if kind in BINARY or kind == "MatMul":
        return getattr(O, kind)(x, y)
    if kind == "Reshape":
        return O.Reshape(O.Reshape(O.Transpose(x), [-1]) + O.Reshape(y, [-1]), [size, size])
    if kind == "ReduceSum":
        return O.Sub(x, O.ReduceSum(y, [0]))
    if kind == "Slice":
        return O.Concat(O.Slice(x, [0], [1]), O.Slice(y, [1], [size]), axis=0)
    return getattr(O, kind)(x)


@settings(max_examples=60)
@given(graphs())
def test_random_graphs(drawn: tuple[Builder, list[Value], dict[str, Array]]) -> None:
    builder, targets, feeds = drawn
    agree(Program(builder, [value.name for value in targets], feeds.keys()), feeds)


@settings(max_examples=60)
@given(graphs())
def test_random_graphs_in_chains(drawn: tuple[Builder, list[Value], dict[str, Array]]) -> None:
    builder, targets, feeds = drawn
    with small_blocks():
        program = Program(builder, [value.name for value in targets], feeds.keys())
        agree(program, feeds)


def test_normalisation_and_softmax_run_in_chains() -> None:
    draw, builder = np.random.default_rng(0), Builder(training=True)
    feeds = {"x": draw.normal(size=(7, 5, 6)), "scale": draw.normal(size=6), "bias": draw.normal(size=6)}
    x, scale, bias = (builder.leaf(name, TensorType(array.dtype, array.shape)) for name, array in feeds.items())
    y = O.Softmax(O.Gelu(O.LayerNormalization(x, scale, bias)) * x)
    found = differentiate(builder, {y.name: builder.constant(draw.normal(size=y.sizes))}, list(feeds))
    targets = [y.name, *(value.name for value in found.values() if value is not None)]
    with small_blocks():
        program = Program(builder, targets, feeds.keys())
        chains = [item for item in program.schedule.steps if isinstance(item, Chain)]
        assert sum(len(chain.steps) for chain in chains) > len(program.nodes) / 3
        assert any(chain.passing for chain in chains)
        agree(program, feeds)


@contextmanager
def small_blocks() -> Iterator[None]:
    """Lets small arrays be worked on in blocks of a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "LARGE_BYTES", 1)
        patch.setattr(chains, "BLOCK_BYTES", 600)
        yield


@pytest.mark.parametrize("batch", [1, 3, 16, 20])
@pytest.mark.parametrize(
    ("channels", "kernels", "size", "options"),
    [
        (3, (4, 3, 3, 3), (9, 8), {"pads": (1, 1, 1, 1)}),
        (3, (4, 3, 1, 1), (5, 6), {}),
        (4, (6, 2, 3, 2), (9, 8), {"group": 2, "strides": (2, 1), "pads": (1, 0, 0, 1), "dilations": (1, 2)}),
        (4, (4, 1, 3, 3), (6, 6), {"group": 4, "pads": (2, 2, 2, 2)}),
        (2, (3, 2, 5), (40,), {"strides": (3,), "pads": (4, 1)}),
        (16, (8, 16, 3, 3), (40, 40), {"pads": (1, 1, 1, 1)}),
        (2, (2, 2, 2, 2, 2), (4, 3, 5), {"pads": (0, 1, 0, 0, 0, 1)}),
    ],
)
def test_convolutions_in_every_layout(
    batch: int, channels: int, kernels: tuple[int, ...], size: tuple[int, ...], options: dict[str, Any]
) -> None:
    draw, builder = np.random.default_rng(0), Builder(training=True)
    feeds = {"x": draw.normal(size=(batch, channels, *size)), "w": draw.normal(size=kernels)}
    x, w = (builder.leaf(name, TensorType(array.dtype, array.shape)) for name, array in feeds.items())
    y = O.Conv(O.Relu(x * 2.0), w, **options)
    pooled = O.MaxPool(O.Relu(y), kernel_shape=(2,) * len(size), strides=(1,) * len(size), pads=(1,) * 2 * len(size))
    plain = O.MaxPool(y, kernel_shape=(2,) * len(size), strides=(2,) * len(size))
    loss = O.ReduceSum(O.Flatten(pooled) * 0.5) + O.ReduceSum(plain * plain)
    found = differentiate(builder, {loss.name: builder.constant(np.ones(loss.sizes))}, ["x", "w"])
    targets = [y.name, pooled.name, *(value.name for value in found.values() if value is not None)]
    agree(Program(builder, targets, feeds.keys()), feeds)
    with small_blocks():
        agree(Program(builder, targets, feeds.keys()), feeds)


def test_results_last_and_feeds_may_lie_in_any_way() -> None:
    builder, x = Builder(training=True), np.arange(10.0).reshape(2, 5)
    feed, weight = builder.leaf("x", TensorType(x.dtype, (1, 5))), builder.leaf("w", TensorType(x.dtype, (5, 2)))
    targets = [value.name for value in (O.MatMul(feed, weight), O.Transpose(feed), O.Expand(feed, [3, 5]), feed)]
    program = Program(builder, targets, ("x", "w"))
    frame = program.frame(Workspace(), passing=("x",))
    unaligned = np.zeros(81, np.uint8)[1:].view(np.float64).reshape(5, 2)
    read_only = np.ones((5, 2))
    read_only.flags.writeable = False
    odd = (np.ones((2, 5)).T, np.ones((9, 2))[::2], np.ones((5, 2))[::-1], unaligned, read_only)
    held = []
    for first, w in zip((x[::-1][:1], x[:1], x[0][None], x[1:, ::-1], np.asfortranarray(x)[:1]), odd, strict=True):
        feeds = {"x": first, "w": w}
        held.append((frame.run(feeds), [np.array(array) for array in program.run(feeds)]))
    for found, wanted in held:
        for array, expected in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_bound_that_is_no_longer_needed_limits_before_its_memory_is_used_again() -> None:
    builder = Builder(training=True)
    x, low, high = (builder.leaf(name, TensorType.of("float64", ())) for name in ("x", "low", "high"))
    y = O.Neg(O.Clip(x, low, O.Exp(high)))
    agree(
        Program(builder, [y.name], ("x", "low", "high")),
        {"x": np.array(9.0), "low": np.array(1.0), "high": np.array(0.5)},
    )


def test_small_indices_reach_far() -> None:
    builder, draw = Builder(training=True), np.random.default_rng(0)
    feeds: dict[str, Array] = {"x": draw.normal(size=(5, 100)), "at": draw.integers(-5, 5, (2, 100)).astype(np.int8)}
    x, at = (builder.leaf(name, TensorType(array.dtype, array.shape)) for name, array in feeds.items())
    agree(Program(builder, [O.GatherElements(x, at).name], feeds.keys()), feeds)


def test_windows_with_nan() -> None:
    builder, x = Builder(training=True), np.random.default_rng(0).normal(size=(1, 1, 5, 5))
    x[0, 0, 1::2, 1::2] = np.nan
    leaf = builder.leaf("x", TensorType(x.dtype, x.shape))
    y, places = O.MaxPool(leaf, kernel_shape=(2, 2), strides=(2, 2), pads=(1, 1, 0, 0), n_outputs=2)
    found = differentiate(builder, {y.name: builder.constant(np.ones(y.sizes))}, ["x"])["x"]
    assert found is not None
    agree(Program(builder, [y.name, places.name, found.name], ("x",)), {"x": x})


def test_after_an_error_on_the_way_the_frame_runs_as_before() -> None:
    builder, x = Builder(training=True), np.random.default_rng(0).normal(size=(4, 3))
    table, at = builder.leaf("x", TensorType(x.dtype, x.shape)), builder.leaf("at", TensorType.of("int64", (2,)))
    program = Program(builder, [O.Exp(O.Gather(O.Tanh(table), at)).name], ("x", "at"))
    frame = program.frame(Workspace())
    good, bad = {"x": x, "at": np.array([1, -1])}, {"x": x, "at": np.array([1, 4])}
    for feeds in (good, bad, good, bad, good):
        if feeds is bad:
            with pytest.raises(InvalidValue, match="index 4"):
                frame.run(feeds)
        else:
            np.testing.assert_allclose(frame.run(feeds)[0], program.run(feeds)[0], rtol=1e-15)
