"""Every function of the builder, computed by a real server, against numpy."""

from collections.abc import Callable
from math import erf as scalar_erf
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import backwire as bw

Array = NDArray[Any]
Case = tuple[Callable[..., bw.Value], Callable[..., Any], tuple[Array, ...]]

_draws = np.random.default_rng(5)


def F(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    return _draws.uniform(low, high, shape).astype(np.float32)


def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def windows(x: Array, size: int, stride: int) -> Array:
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def cross_correlation(x: Array, w: Array, b: Array) -> Array:
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows(padded, 3, 1), w) + b[:, None, None])


def parts(x: NDArray[Any]) -> Array:
    return np.stack((x.real, x.imag), -1)


A, B = F(3, 4), F(3, 4)
P = F(3, 4, low=0.5, high=2.0)
T = F(2, 3, 4)
IMAGES, KERNEL = F(2, 3, 6, 6), F(5, 3, 3, 3)
LABELS = np.array([3, 0, 1])
erf = np.vectorize(scalar_erf)

CASES: dict[str, Case] = {
    "add": (lambda a, b: a + b, np.add, (A, B)),
    "broadcast": (lambda a, t: a - t, np.subtract, (A, T)),
    "multiply by number": (lambda a: 3 * a, lambda a: 3 * a, (A,)),
    "divide": (lambda a, p: a / p, np.divide, (A, P)),
    "number divided": (lambda p: 1 / p, lambda p: 1 / p, (P,)),
    "power": (lambda p: p**1.5, lambda p: p**1.5, (P,)),
    "number to the power": (lambda a: 2**a, lambda a: 2**a, (A,)),
    "negative": (lambda a: -a, np.negative, (A,)),
    "abs": (abs, np.abs, (A,)),
    "matmul": (lambda a, b: a @ b.T, lambda a, b: a @ b.T, (A, B)),
    "batched matmul": (lambda t, a: t @ a.T, lambda t, a: t @ a.T, (T, A)),
    "vector matmul": (lambda a: a @ [1, 2, 3, 4], lambda a: a @ np.array([1, 2, 3, 4]), (A,)),
    "greater": (lambda a, b: a > b, np.greater, (A, B)),
    "greater or equal": (lambda a: a >= A[0, 0], lambda a: a >= A[0, 0], (A,)),
    "less": (lambda a, b: a < b, np.less, (A, B)),
    "less or equal": (lambda a: a <= A[0, 0], lambda a: a <= A[0, 0], (A,)),
    "equal": (lambda a: bw.equal(a, A[0, 0]), lambda a: a == A[0, 0], (A,)),
    "not equal": (lambda a: bw.not_equal(a, A[0, 0]), lambda a: a != A[0, 0], (A,)),
    "logic": (lambda a, b: (a > 0) & ~(b > 0) | (b < -1), lambda a, b: (a > 0) & ~(b > 0) | (b < -1), (A, B)),
    "exp": (bw.exp, np.exp, (A,)),
    "log": (bw.log, np.log, (P,)),
    "sqrt": (bw.sqrt, np.sqrt, (P,)),
    "sin": (bw.sin, np.sin, (A,)),
    "cos": (bw.cos, np.cos, (A,)),
    "erf": (bw.erf, erf, (A,)),
    "reciprocal": (bw.reciprocal, np.reciprocal, (P,)),
    "sign": (bw.sign, np.sign, (A,)),
    "relu": (bw.relu, lambda a: np.maximum(a, 0), (A,)),
    "leaky relu": (lambda a: bw.leaky_relu(a, 0.2), lambda a: np.where(a > 0, a, 0.2 * a), (A,)),
    "elu": (lambda a: bw.elu(a, 0.5), lambda a: np.where(a > 0, a, 0.5 * np.expm1(a)), (A,)),
    "sigmoid": (bw.sigmoid, sigmoid, (A,)),
    "tanh": (bw.tanh, np.tanh, (A,)),
    "softplus": (bw.softplus, lambda a: np.log1p(np.exp(a)), (A,)),
    "gelu": (bw.gelu, lambda a: a * (1 + erf(a / np.sqrt(2))) / 2, (A,)),
    "approximate gelu": (
        lambda a: bw.gelu(a, approximate=True),
        lambda a: a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))),
        (A,),
    ),
    "softmax": (bw.softmax, softmax, (A,)),
    "softmax of axis 0": (lambda a: bw.softmax(a, 0), lambda a: softmax(a, 0), (A,)),
    "log softmax": (bw.log_softmax, lambda a: np.log(softmax(a)), (A,)),
    "maximum": (lambda a, b: bw.maximum(a, b, 0), lambda a, b: np.maximum(np.maximum(a, b), 0), (A, B)),
    "minimum": (bw.minimum, np.minimum, (A, B)),
    "clip": (lambda a: bw.clip(a, -1, 0.5), lambda a: np.clip(a, -1, 0.5), (A,)),
    "clip above": (lambda a: bw.clip(a, high=0.5), lambda a: np.minimum(a, 0.5), (A,)),
    "clip below": (lambda a: bw.clip(a, 0.5), lambda a: np.maximum(a, 0.5), (A,)),
    "where": (lambda a, b: bw.where(a > b, a, 0), lambda a, b: np.where(a > b, a, 0), (A, B)),
    "cast": (lambda a: bw.cast(a, "int64"), lambda a: a.astype(np.int64), (A,)),
    "sum": (bw.sum, np.sum, (T,)),
    "sum of axes": (lambda t: bw.sum(t, (0, -1)), lambda t: t.sum((0, -1)), (T,)),
    "mean": (lambda t: bw.mean(t, 1, keepdims=True), lambda t: t.mean(1, keepdims=True), (T,)),
    "max": (lambda t: bw.max(t, 2), lambda t: t.max(2), (T,)),
    "reshape": (lambda t: bw.reshape(t, (t.shape[0], -1)), lambda t: t.reshape(2, -1), (T,)),
    "flatten": (lambda t: bw.flatten(t, 2), lambda t: t.reshape(6, 4), (T,)),
    "transpose": (lambda t: bw.transpose(t, (1, 2, 0)), lambda t: t.transpose(1, 2, 0), (T,)),
    "squeeze": (lambda a: bw.squeeze(bw.unsqueeze(a, (0, 2)), 0), lambda a: a[:, None], (A,)),
    "broadcast to": (lambda a: bw.broadcast_to(a, (2, 3, 4)), lambda a: np.broadcast_to(a, (2, 3, 4)), (A,)),
    "concat": (lambda a, b: bw.concat([a, b], 1), lambda a, b: np.concatenate([a, b], 1), (A, B)),
    "stack": (lambda a, b: bw.stack([a, b], 1), lambda a, b: np.stack([a, b], 1), (A, B)),
    "split": (lambda a: bw.split(a, 2, axis=1)[1], lambda a: a[:, 2:], (A,)),
    "split by sizes": (lambda a: bw.split(a, [1, 3], axis=1)[1], lambda a: a[:, 1:], (A,)),
    "take": (lambda t: bw.take(t, [[2, 0]], 1), lambda t: t.take([[2, 0]], 1), (T,)),
    "pad": (lambda a: bw.pad(a, [(1, 0), (0, 2)], 7), lambda a: np.pad(a, [(1, 0), (0, 2)], constant_values=7), (A,)),
    "one hot": (lambda i: bw.one_hot(i, 4), lambda i: np.eye(4)[i], (LABELS,)),
    "shape": (bw.shape, np.shape, (T,)),
    "index": (lambda t: t[:, 1], lambda t: t[:, 1], (T,)),
    "index from the end": (lambda t: t[..., -1], lambda t: t[..., -1], (T,)),
    "slice": (lambda t: t[:, ::-1, 1:3], lambda t: t[:, ::-1, 1:3], (T,)),
    "slice backwards": (lambda a: a[:, 3:0:-2], lambda a: a[:, 3:0:-2], (A,)),
    "new axes": (lambda a: a[None, :, 0, None], lambda a: a[None, :, 0, None], (A,)),
    "rows by index": (lambda a, i: a[i], lambda a, i: a[i], (F(4, 2), LABELS)),
    "conv": (
        lambda x, w: bw.conv(x, w, bw.constant([1, 2, 3, 4, 5], "float32"), padding="same"),
        lambda x, w: cross_correlation(x, w, np.array([1, 2, 3, 4, 5])),
        (IMAGES, KERNEL),
    ),
    "max pool": (lambda x: bw.max_pool2d(x, 2), lambda x: windows(x, 2, 2).max((-1, -2)), (IMAGES,)),
    "average pool": (
        lambda x: bw.average_pool2d(x, 3, stride=1),
        lambda x: windows(x, 3, 1).mean((-1, -2)),
        (IMAGES,),
    ),
    "global average pool": (bw.global_average_pool, lambda x: x.mean((2, 3), keepdims=True), (IMAGES,)),
    "dropout in eval mode": (lambda a: bw.dropout(a, 0.9), lambda a: a, (A,)),
    "roi align": (
        lambda x: bw.roi_align(x, [[0, 0, 4, 2]], [1], (1, 2), sampling_ratio=2),
        lambda x: x[1:2, :, :2, :4].reshape(1, 3, 1, 2, 2, 2).mean((3, 5)),
        (IMAGES,),
    ),
    "real fourier transform": (bw.rfft, lambda t: parts(np.fft.rfft(t)), (T,)),
    "inverse real fourier transform": (
        lambda c: bw.irfft(c, 5),
        lambda c: np.fft.irfft(c[..., 0] + 1j * c[..., 1], 5),
        (F(2, 3, 2),),
    ),
    "short-time fourier transform": (
        lambda s: bw.stft(s, 4, 3, np.hanning(4)),
        lambda s: parts(np.fft.rfft(np.stack([s[:, at : at + 4] * np.hanning(4) for at in (0, 3, 6)], 1))),
        (F(2, 11),),
    ),
    "squared error": (bw.squared_error, lambda a, b: np.mean((a - b) ** 2), (A, B)),
    "half squared error": (
        lambda a, b: bw.squared_error(a, b, half=True, reduction="sum"),
        lambda a, b: np.sum((a - b) ** 2) / 2,
        (A, B),
    ),
    "absolute error": (bw.absolute_error, lambda a, b: np.mean(abs(a - b)), (A, B)),
    "softmax cross-entropy": (
        bw.softmax_cross_entropy,
        lambda a, i: -np.log(softmax(a))[np.arange(3), i].mean(),
        (A, LABELS),
    ),
    "softmax cross-entropy of each": (
        lambda a, i: bw.softmax_cross_entropy(a, i, reduction="none"),
        lambda a, i: -np.log(softmax(a))[np.arange(3), i],
        (A, LABELS),
    ),
    "softmax cross-entropy of probabilities": (
        lambda a, b: bw.softmax_cross_entropy(a, bw.softmax(b)),
        lambda a, b: -np.mean(np.sum(softmax(b) * np.log(softmax(a)), 1)),
        (A, B),
    ),
    "sigmoid cross-entropy": (
        lambda a, b: bw.sigmoid_cross_entropy(a, bw.sigmoid(b)),
        lambda a, b: -np.mean(sigmoid(b) * np.log(sigmoid(a)) + (1 - sigmoid(b)) * np.log(1 - sigmoid(a))),
        (A, B),
    ),
}


@pytest.mark.parametrize("symbolic", [False, True], ids=["sizes", "names"])
@pytest.mark.parametrize("name", CASES)
def test_the_server_computes_what_numpy_does(name: str, symbolic: bool, client: bw.Client) -> None:
    build, expected, arrays = CASES[name]
    inputs = []
    for index, array in enumerate(arrays):
        first = "n0" if symbolic and index == 0 else array.shape[0]
        inputs.append(bw.input(f"x{index}", (first, *array.shape[1:]), array.dtype))
    value = build(*inputs)
    wanted = np.asarray(expected(*(array.astype(np.float64) if array.dtype.kind == "f" else array for array in arrays)))
    with client.create_session(bw.graph(outputs={"y": value})) as session:
        given = {f"x{index}": array for index, array in enumerate(arrays)}
        got = session.forward(given, mode="eval").outputs["y"]
    assert got.dtype == value.dtype
    assert value.shape is not None
    assert len(value.shape) == got.ndim
    assert all(dim == size for dim, size in zip(value.shape, got.shape, strict=True) if isinstance(dim, int))
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)
    assert got.shape == wanted.shape


def test_random_numbers_have_the_declared_shapes_and_differ_between_passes(client: bw.Client) -> None:
    x = bw.input("x", ("n", 3))
    drawn = {
        "rand": bw.rand((2, 5), "float64"),
        "randn": bw.randn((4,)),
        "rand like": bw.rand_like(x),
        "randn like": bw.randn_like(x),
        "bernoulli": bw.bernoulli(bw.rand_like(x)),
        "multinomial": bw.multinomial(x, 2),
    }
    with client.create_session(bw.graph(outputs=drawn)) as session:
        first, second = (session.forward({"x": A[:, :3]}, mode="train").outputs for _ in range(2))
    for name, value in drawn.items():
        assert value.shape is not None
        assert first[name].dtype == value.dtype
        assert first[name].shape == tuple(3 if dim == "n" else dim for dim in value.shape)
    for name in ("rand", "randn", "rand like", "randn like"):
        assert not np.any(first[name] == second[name])
    assert set(np.unique(first["bernoulli"])) <= {0.0, 1.0}
    assert set(np.unique(first["multinomial"])) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: bw.rand((-1, 2)), bw.ShapeError),
        (lambda: bw.randn((2,), "int64"), bw.DTypeError),
        (lambda: bw.rand_like(bw.constant([1, 2])), bw.DTypeError),
        (lambda: bw.multinomial(bw.input("x", (3,))), bw.ShapeError),
        (lambda: bw.multinomial(bw.input("x", (3, 2)), 0), bw.InvalidRequestError),
        (lambda: bw.stft(bw.input("x", (3, 2)), 4, 1), bw.ShapeError),
        (lambda: bw.stft(bw.input("x", (3, 9)), 4, 0), bw.InvalidRequestError),
        (lambda: bw.irfft(bw.input("x", (3, 9)), 4), bw.ShapeError),
        (lambda: bw.irfft(bw.input("x", (3, 2)), 0), bw.InvalidRequestError),
        (lambda: bw.rfft(bw.input("x", ())), bw.ShapeError),
    ],
)
def test_mistakes_show_where_they_are_made(build: Callable[[], bw.Value], error: type[bw.BackwireError]) -> None:
    with pytest.raises(error):
        build()
