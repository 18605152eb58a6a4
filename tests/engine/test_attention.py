"""What attention does besides its formula: shared heads, masks that hide everything, and arguments that do not fit."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine.builder import Builder
from backwire_server.engine.dims import Symbolic
from backwire_server.engine.errors import EngineError, GraphError, InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model

Array = NDArray[Any]

draw = np.random.default_rng(8)
Q, K, V = draw.normal(size=(2, 4, 3, 2)), draw.normal(size=(2, 2, 5, 2)), draw.normal(size=(2, 2, 5, 3))


def run(*inputs: Array | None, op: str = "Attention", **attributes: Any) -> tuple[Array, dict[str, Array]]:
    """Returns the first output of one node and the gradients of its sum by the float inputs."""
    feeds = {f"x{index}": each for index, each in enumerate(inputs) if each is not None}
    names = tuple("" if each is None else f"x{index}" for index, each in enumerate(inputs))
    declared = tuple(Input(name, TensorType(each.dtype, each.shape)) for name, each in feeds.items())
    model = Model(Graph(declared, (), {}, (Node(op, names, ("y",), attributes),), {"y": "y"}))
    done = model.forward(feeds, {}, training=True)
    y = done.outputs["y"]
    floats = [name for name, each in feeds.items() if each.dtype.kind == "f"]
    return y, model.backward(done, {"y": np.ones_like(y)}, wrt=floats).inputs


def test_neighbouring_heads_of_the_query_share_a_head_of_keys_and_values() -> None:
    shared, _ = run(Q, K, V)
    repeated, _ = run(Q, K.repeat(2, axis=1), V.repeat(2, axis=1))
    np.testing.assert_allclose(shared, repeated)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_may_attend_to_nothing_gives_zero_and_has_zero_gradients(kind: str) -> None:
    allowed = np.ones((3, 5), np.bool_)
    allowed[1] = False
    mask = allowed if kind == "bool" else np.where(allowed, 0.0, -np.inf)
    y, gradients = run(Q, K, V, mask)
    np.testing.assert_array_equal(y[:, :, 1], 0.0)
    assert (y[:, :, [0, 2]] != 0.0).all()
    np.testing.assert_array_equal(gradients["x0"][:, :, 1], 0.0)
    assert all(np.isfinite(each).all() for each in gradients.values())


def test_a_causal_step_with_the_past_is_the_last_row_of_causal_attention_over_all() -> None:
    whole, _ = run(Q, K[:, :, :3], V[:, :, :3], is_causal=1)
    step, _ = run(Q[:, :, 2:], K[:, :, 2:3], V[:, :, 2:3], None, K[:, :, :2], V[:, :, :2], is_causal=1)
    np.testing.assert_allclose(step, whole[:, :, 2:])


def test_keys_past_the_count_do_not_matter() -> None:
    counted, _ = run(Q, K, V, None, None, None, np.array([3, 5]))
    np.testing.assert_allclose(counted[0], run(Q[:1], K[:1, :, :3], V[:1, :, :3])[0][0])
    np.testing.assert_allclose(counted[1], run(Q[1:], K[1:], V[1:])[0][0])


def test_linear_attention_goes_on_from_the_state_it_returned() -> None:
    options = {"q_num_heads": 2, "kv_num_heads": 1, "update_rule": "linear"}
    q, k, v = draw.normal(size=(1, 4, 4)), draw.normal(size=(1, 4, 2)), draw.normal(size=(1, 4, 3))
    y, _ = run(q, k, v, op="LinearAttention", **options)
    state = np.einsum("tk,tv->kv", k[0, :3], v[0, :3])[None, None]
    last, _ = run(q[:, 3:], k[:, 3:], v[:, 3:], state, op="LinearAttention", **options)
    np.testing.assert_allclose(last, y[:, 3:])


def test_the_batch_may_be_symbolic() -> None:
    builder = Builder(training=False, abstract=True)
    values = [
        builder.leaf(name, TensorType.of("float32", ("batch", *shape)))
        for name, shape in (("q", (3, 8)), ("k", (5, 4)), ("v", (5, 6)))
    ]
    options = {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1}
    y, key, *_ = builder.emit("Attention", values, options, 4)
    assert y.shape == (Symbolic.of("batch"), 3, 12)
    assert key.shape == (Symbolic.of("batch"), 2, 5, 2)


@pytest.mark.parametrize(
    ("inputs", "attributes", "error", "message"),
    [
        ((Q, K, V, None, K), {}, GraphError, "give both or neither"),
        ((Q, K, V, None, K, V, np.array([1, 1])), {}, GraphError, "leave out past_key"),
        ((Q[:, :3], K, V), {}, ShapeMismatch, "3 heads of q cannot share 2"),
        ((Q[0], K[0], V[0]), {}, InvalidAttribute, "q_num_heads is None"),
        ((Q[0], K[0], V[0]), {"q_num_heads": 4, "kv_num_heads": 1}, InvalidAttribute, "must divide the last axis"),
        ((Q, K, V), {"qk_matmul_output_mode": 4}, InvalidAttribute, "use 0, 1, 2 or 3"),
        ((Q, K, V), {"left_window_size": -2}, InvalidAttribute, "window size is -2"),
    ],
)
def test_what_does_not_fit_is_named(
    inputs: tuple[Array | None, ...], attributes: dict[str, Any], error: type[EngineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(*inputs, **attributes)
