"""Inputs without elements: an empty batch has a result and gradients, and what cannot be is a typed error."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine import ops as _ops  # noqa: F401
from backwire_server.engine.errors import EngineError, InvalidValue, ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample, case

Array = NDArray[Any]
PUBLIC = sorted(name for name, op in OPS.items() if not op.internal)


def run(op: str, sample: Sample) -> tuple[list[Array], dict[str, Array]]:
    """Returns the outputs of one node in training, and the gradients of the sum of them by its float inputs."""
    arrays = {f"x{at}": np.asarray(each) for at, each in enumerate(sample.inputs) if each is not None}
    feeds = {
        name: each for name, each in arrays.items() if each.dtype.kind == "f" and int(name[1:]) not in sample.static
    }
    constants = {name: each for name, each in arrays.items() if name not in feeds}
    inputs = tuple("" if each is None else f"x{at}" for at, each in enumerate(sample.inputs))
    outputs = tuple(f"y{at}" for at in range(sample.n_outputs))
    declared = tuple(Input(name, TensorType(each.dtype, each.shape)) for name, each in feeds.items())
    node = Node(op, inputs, outputs, sample.attributes)
    model = Model(Graph(declared, (), constants, (node,), {name: name for name in outputs}))
    done = model.forward(feeds, {}, training=True)
    seeds = {name: np.ones_like(each) for name, each in done.outputs.items() if each.dtype.kind == "f"}
    gradients = model.backward(done, seeds, wrt=[*feeds]).inputs if feeds and seeds else {}
    return [done.outputs[name] for name in outputs], dict(gradients)


def emptied(sample: Sample) -> Iterator[Sample]:
    """Yields the sample with an axis of its first input cut to nothing, alone and along with all inputs like it."""
    first, *others = (None if each is None else np.asarray(each) for each in sample.inputs)
    for axis in range(0 if first is None else first.ndim):
        assert first is not None
        cut: Any = (*[slice(None)] * axis, slice(0, 0))
        size = first.shape[axis]
        alike = (
            each[cut] if each is not None and each.ndim > axis and each.shape[axis] == size else each for each in others
        )
        yield Sample((first[cut], *others), sample.attributes, sample.n_outputs, sample.static)
        yield Sample((first[cut], *alike), sample.attributes, sample.n_outputs, sample.static)


@pytest.mark.parametrize("op", PUBLIC)
def test_gradients_have_the_shapes_of_the_inputs_or_the_error_is_typed(op: str) -> None:
    for sample in (each for given in OPS[op].samples if given.inputs for each in emptied(given)):
        try:
            _, gradients = run(op, sample)
        except EngineError:
            continue
        shapes = {f"x{at}": each.shape for at, each in enumerate(sample.inputs) if each is not None}
        assert {name: gradient.shape for name, gradient in gradients.items()}.items() <= shapes.items()


E4: Array = np.zeros((0, 4, 5, 5))
K: Array = np.ones((4, 2, 3, 3))
BATCHES = [
    ("Conv", case(E4, K, group=2), (0, 4, 3, 3)),
    ("ConvTranspose", case(E4, K, group=2), (0, 4, 7, 7)),
    ("ReduceSum", case(np.ones((3, 0, 4)), np.array([0]), keepdims=0), (0, 4)),
    ("Add", case(np.ones((0, 4)), np.ones((3, 0, 4))), (3, 0, 4)),
    ("MaxPool", case(E4, kernel_shape=(2, 2), n_outputs=2), (0, 4, 4, 4)),
    ("GroupNormalization", case(E4, np.ones(4), np.ones(4), num_groups=2), (0, 4, 5, 5)),
    ("GridSample", case(E4, np.zeros((0, 2, 3, 2))), (0, 4, 2, 3)),
    ("MatMul", case(np.zeros((0, 3, 4)), np.ones((4, 2))), (0, 3, 2)),
    ("Gemm", case(np.zeros((0, 4)), np.ones((4, 2)), np.ones(2)), (0, 2)),
    ("Attention", case(*(np.zeros((0, 3, 4)),) * 3, q_num_heads=2, kv_num_heads=2), (0, 3, 4)),
    ("LSTM", case(np.zeros((3, 0, 2)), np.ones((1, 8, 2)), np.ones((1, 8, 2))), (3, 1, 0, 2)),
]


@pytest.mark.parametrize(("op", "sample", "shape"), BATCHES, ids=[op for op, *_ in BATCHES])
def test_an_empty_batch_adds_nothing_to_the_gradients_of_weights(
    op: str, sample: Sample, shape: tuple[int, ...]
) -> None:
    (y, *_), gradients = run(op, sample)
    assert y.shape == shape
    assert all(not gradient.any() for gradient in gradients.values())


def test_what_is_copied_may_be_zero_while_the_rest_is_inferred() -> None:
    (y,), _ = run("Reshape", case(np.zeros((0, 6, 2)), np.array([0, 3, -1])))
    assert y.shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("op", "sample", "error", "remedy"),
    [
        ("ArgMax", case(np.zeros((2, 0)), axis=1), ShapeMismatch, "no elements to search"),
        ("BatchNormalization", case(E4, *[np.ones(4)] * 4, training_mode=1), ShapeMismatch, "give at least one"),
        ("Gather", case(np.zeros((0, 2)), np.array([0])), InvalidValue, "correct the indices"),
        ("GatherElements", case(np.zeros((3, 1)), np.array([[0, 1]])), ShapeMismatch, "2 places along axis 1"),
        (
            "ScatterElements",
            case(np.zeros((3, 1)), np.array([[0, 1]]), np.ones((1, 2))),
            ShapeMismatch,
            "2 places along axis 1",
        ),
    ],
)
def test_what_needs_elements_says_so(op: str, sample: Sample, error: type[Exception], remedy: str) -> None:
    with pytest.raises(error, match=remedy):
        run(op, sample)
