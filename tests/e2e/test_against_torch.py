"""Whole models through the service: outputs, losses and gradients of all parameters and inputs are PyTorch's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import backwire as bw

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
Array = NDArray[Any]
DRAW = np.random.default_rng(7)


@dataclass
class Model:
    """The same formula twice: `here` builds it with Backwire, `there` computes it with PyTorch."""

    inputs: dict[str, Array]
    parameters: dict[str, Array]
    here: Callable[[dict[str, bw.Value], dict[str, bw.Value]], bw.Value]
    there: Callable[[dict[str, Any], dict[str, Any]], Any]


def normal(*shape: int, scale: float = 0.5) -> Array:
    return DRAW.normal(scale=scale, size=shape)


def labels(count: int, classes: int) -> Array:
    return DRAW.integers(classes, size=count)


def perceptron() -> Model:
    F = torch.nn.functional

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.gelu(x["x"] @ p["w1"] + p["b1"])
        h = bw.elu(bw.leaky_relu(h @ p["w2"] + p["b2"]) * bw.softplus(h))
        return bw.softmax_cross_entropy(h @ p["w3"], x["y"])

    def there(x: Any, p: Any) -> Any:
        h = F.gelu(x["x"] @ p["w1"] + p["b1"])
        h = F.elu(F.leaky_relu(h @ p["w2"] + p["b2"]) * F.softplus(h))
        return F.cross_entropy(h @ p["w3"], x["y"])

    sizes = {"w1": normal(6, 8), "b1": normal(8), "w2": normal(8, 8), "b2": normal(8), "w3": normal(8, 5)}
    return Model({"x": normal(4, 6), "y": labels(4, 5)}, sizes, here, there)


def convolutions() -> Model:
    F = torch.nn.functional

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.relu(bw.conv(x["x"], p["k1"], p["c1"], stride=2, padding=1))
        h = h + bw.tanh(bw.conv(h, p["k2"], dilation=2, padding=2, groups=2))
        h = bw.max_pool2d(h, 3, stride=2, padding=1)
        h = bw.flatten(bw.average_pool2d(h, 2, stride=1))
        return bw.softmax_cross_entropy(h @ p["w"], x["y"])

    def there(x: Any, p: Any) -> Any:
        h = F.relu(F.conv2d(x["x"], p["k1"], p["c1"], stride=2, padding=1))
        h = h + torch.tanh(F.conv2d(h, p["k2"], dilation=2, padding=2, groups=2))
        h = F.max_pool2d(h, 3, stride=2, padding=1)
        h = F.avg_pool2d(h, 2, stride=1).flatten(1)
        return F.cross_entropy(h @ p["w"], x["y"])

    sizes = {"k1": normal(4, 3, 3, 3), "c1": normal(4), "k2": normal(4, 2, 3, 3), "w": normal(16, 3)}
    return Model({"x": normal(2, 3, 11, 11), "y": labels(2, 3)}, sizes, here, there)


def attention() -> Model:
    causal = np.triu(np.full((5, 5), -1e9), 1)

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.take(p["table"], x["tokens"])
        q, k, v = (bw.transpose(bw.reshape(h @ p[n], (2, 5, 2, 3)), (0, 2, 1, 3)) for n in ("q", "k", "v"))
        scores = q @ bw.transpose(k, (0, 1, 3, 2)) * 3**-0.5 + bw.constant(causal, dtype="float64")
        h = h + bw.reshape(bw.transpose(bw.softmax(scores) @ v, (0, 2, 1, 3)), (2, 5, 6))
        centred = h - bw.mean(h, -1, keepdims=True)
        h = centred / bw.sqrt(bw.mean(centred**2, -1, keepdims=True) + 1e-5) * p["gain"]
        logits = bw.reshape(h @ p["table"].T, (10, 7))
        return bw.softmax_cross_entropy(logits, bw.reshape(x["next"], (10,)))

    def there(x: Any, p: Any) -> Any:
        h = p["table"][x["tokens"]]
        q, k, v = ((h @ p[n]).reshape(2, 5, 2, 3).transpose(1, 2) for n in ("q", "k", "v"))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + mixed.transpose(1, 2).reshape(2, 5, 6)
        h = torch.nn.functional.layer_norm(h, (6,), p["gain"], eps=1e-5)
        return torch.nn.functional.cross_entropy((h @ p["table"].T).reshape(10, 7), x["next"].reshape(10))

    sizes = {"table": normal(7, 6), "q": normal(6, 6), "k": normal(6, 6), "v": normal(6, 6), "gain": normal(6)}
    return Model({"tokens": labels(10, 7).reshape(2, 5), "next": labels(10, 7).reshape(2, 5)}, sizes, here, there)


def recurrence() -> Model:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = cell = bw.constant(np.zeros((3, 4)), dtype="float64")
        for t in range(6):
            gates = x["x"][:, t] @ p["w"].T + h @ p["u"].T + p["b"]
            i, f, g, o = bw.split(gates, 4, axis=1)
            cell = bw.sigmoid(f) * cell + bw.sigmoid(i) * bw.tanh(g)
            h = bw.sigmoid(o) * bw.tanh(cell)
        return bw.squared_error(h, x["y"])

    def there(x: Any, p: Any) -> Any:
        lstm = torch.nn.LSTM(2, 4, batch_first=True, dtype=torch.float64)
        zeros = torch.zeros(16, dtype=torch.float64)
        weights = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), (p["w"], p["u"], p["b"]), strict=True))
        _, (h, _) = torch.func.functional_call(lstm, {**weights, "bias_hh_l0": zeros}, (x["x"],))
        return torch.nn.functional.mse_loss(h[0], x["y"])

    sizes = {"w": normal(16, 2), "u": normal(16, 4), "b": normal(16)}
    return Model({"x": normal(3, 6, 2), "y": normal(3, 4)}, sizes, here, there)


def autoencoder() -> Model:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        mean, log_variance = bw.split(bw.tanh(x["x"] @ p["in"]) @ p["code"], 2, axis=1)
        code = mean + bw.exp(log_variance / 2) * x["noise"]
        divergence = bw.sum(mean**2 + bw.exp(log_variance) - log_variance - 1.0) / 2
        output = bw.relu(code @ p["out"]) @ p["last"]
        return bw.sigmoid_cross_entropy(output, x["x01"], reduction="sum") + divergence

    def there(x: Any, p: Any) -> Any:
        mean, log_variance = (torch.tanh(x["x"] @ p["in"]) @ p["code"]).chunk(2, 1)
        code = mean + torch.exp(log_variance / 2) * x["noise"]
        divergence = (mean**2 + log_variance.exp() - log_variance - 1).sum() / 2
        output = torch.relu(code @ p["out"]) @ p["last"]
        return torch.nn.functional.binary_cross_entropy_with_logits(output, x["x01"], reduction="sum") + divergence

    inputs = {"x": normal(3, 5), "x01": DRAW.uniform(size=(3, 5)), "noise": normal(3, 2)}
    sizes = {"in": normal(5, 6), "code": normal(6, 4), "out": normal(2, 6), "last": normal(6, 5)}
    return Model(inputs, sizes, here, there)


def residual_norms() -> Model:
    F = torch.nn.functional

    def block(h: bw.Value, p: dict[str, bw.Value], i: str) -> bw.Value:
        statistics = [bw.constant(np.full(4, value), dtype="float64") for value in (0.0, 1.0)]
        inputs = (bw.conv(h, p["k" + i], padding=1), p["g" + i], p["s" + i], *statistics)
        return bw.op("BatchNormalization", *inputs, attributes={"training_mode": 1}, shape=h.shape)[0]

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.conv(x["x"], p["stem"], padding=1)
        h = bw.relu(h + block(bw.relu(block(h, p, "1")), p, "2"))
        return bw.softmax_cross_entropy(bw.flatten(bw.global_average_pool2d(h)) @ p["w"], x["y"])

    def there(x: Any, p: Any) -> Any:
        def block(h: Any, i: str) -> Any:
            return F.batch_norm(F.conv2d(h, p["k" + i], padding=1), None, None, p["g" + i], p["s" + i], training=True)

        h = F.conv2d(x["x"], p["stem"], padding=1)
        h = F.relu(h + block(F.relu(block(h, "1")), "2"))
        return F.cross_entropy(h.mean((2, 3)) @ p["w"], x["y"])

    sizes = {"stem": normal(4, 2, 3, 3), "k1": normal(4, 4, 3, 3), "k2": normal(4, 4, 3, 3), "w": normal(4, 3)}
    sizes.update((name, normal(4)) for name in ("g1", "s1", "g2", "s2"))
    return Model({"x": normal(3, 2, 5, 5), "y": labels(3, 3)}, sizes, here, there)


def unet() -> Model:
    F = torch.nn.functional

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        top = bw.tanh(bw.conv(x["x"], p["down1"], padding=1))
        low = bw.tanh(bw.conv(bw.max_pool2d(top, 2), p["down2"], padding=1))
        (up,) = bw.op("ConvTranspose", low, p["up"], attributes={"strides": [2, 2]}, shape=(2, 3, 6, 6))
        return bw.sigmoid_cross_entropy(bw.conv(bw.concat([top, up], axis=1), p["out"]), x["mask"])

    def there(x: Any, p: Any) -> Any:
        top = torch.tanh(F.conv2d(x["x"], p["down1"], padding=1))
        low = torch.tanh(F.conv2d(F.max_pool2d(top, 2), p["down2"], padding=1))
        up = F.conv_transpose2d(low, p["up"], stride=2)
        output = F.conv2d(torch.cat([top, up], 1), p["out"])
        return F.binary_cross_entropy_with_logits(output, x["mask"])

    sizes = {
        "down1": normal(3, 1, 3, 3),
        "down2": normal(4, 3, 3, 3),
        "up": normal(4, 3, 2, 2),
        "out": normal(1, 6, 1, 1),
    }
    return Model({"x": normal(2, 1, 6, 6), "mask": DRAW.uniform(size=(2, 1, 6, 6))}, sizes, here, there)


def mixer() -> Model:
    F = torch.nn.functional

    def norm(h: bw.Value, p: dict[str, bw.Value], i: str) -> bw.Value:
        return bw.op("LayerNormalization", h, p["g" + i], p["s" + i], shape=h.shape)[0]

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = x["x"] @ p["embed"]
        tokens = bw.transpose(norm(h, p, "1"), (0, 2, 1))
        h = h + bw.transpose(bw.gelu(tokens @ p["t1"]) @ p["t2"], (0, 2, 1))
        h = h + bw.gelu(norm(h, p, "2") @ p["c1"], approximate=True) @ p["c2"]
        return bw.softmax_cross_entropy(bw.mean(h, 1) @ p["w"], x["y"])

    def there(x: Any, p: Any) -> Any:
        h = x["x"] @ p["embed"]
        tokens = F.layer_norm(h, (4,), p["g1"], p["s1"]).transpose(1, 2)
        h = h + (F.gelu(tokens @ p["t1"]) @ p["t2"]).transpose(1, 2)
        h = h + F.gelu(F.layer_norm(h, (4,), p["g2"], p["s2"]) @ p["c1"], approximate="tanh") @ p["c2"]
        return F.cross_entropy(h.mean(1) @ p["w"], x["y"])

    sizes = {"embed": normal(5, 4), "t1": normal(6, 8), "t2": normal(8, 6), "c1": normal(4, 8), "c2": normal(8, 4)}
    sizes.update((name, normal(4)) for name in ("g1", "s1", "g2", "s2"))
    return Model({"x": normal(2, 6, 5), "y": labels(2, 3)}, {**sizes, "w": normal(4, 3)}, here, there)


def contrast() -> Model:
    F = torch.nn.functional

    def unit(h: bw.Value) -> bw.Value:
        return h / bw.sqrt(bw.sum(h**2, axis=1, keepdims=True))

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        scores = unit(bw.tanh(x["a"] @ p["left"])) @ unit(x["b"] @ p["right"]).T * bw.exp(p["heat"])
        both = [bw.softmax_cross_entropy(each, x["same"]) for each in (scores, scores.T)]
        return (both[0] + both[1]) / 2

    def there(x: Any, p: Any) -> Any:
        scores = F.normalize(torch.tanh(x["a"] @ p["left"])) @ F.normalize(x["b"] @ p["right"]).T * p["heat"].exp()
        return (F.cross_entropy(scores, x["same"]) + F.cross_entropy(scores.T, x["same"])) / 2

    inputs = {"a": normal(4, 5), "b": normal(4, 6), "same": np.arange(4)}
    return Model(inputs, {"left": normal(5, 3), "right": normal(6, 3), "heat": normal()}, here, there)


def temporal() -> Model:
    F = torch.nn.functional

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.conv(bw.pad(x["x"], [(0, 0), (0, 0), (4, 0)]), p["k1"], p["c1"], dilation=2)
        gate, value = bw.split(h, 2, axis=1)
        h = bw.sigmoid(gate) * bw.tanh(value)
        h = bw.conv(h[:, :, ::2], p["k2"], padding=1, stride=2)
        return bw.mean(bw.absolute_error(h, x["y"], reduction="none") * bw.maximum(h, x["y"]))

    def there(x: Any, p: Any) -> Any:
        gate, value = F.conv1d(F.pad(x["x"], (4, 0)), p["k1"], p["c1"], dilation=2).chunk(2, 1)
        h = torch.sigmoid(gate) * torch.tanh(value)
        h = F.conv1d(h[:, :, ::2], p["k2"], padding=1, stride=2)
        return ((h - x["y"]).abs() * torch.maximum(h, x["y"])).mean()

    sizes = {"k1": normal(4, 3, 3), "c1": normal(4), "k2": normal(2, 2, 3)}
    return Model({"x": normal(2, 3, 9), "y": normal(2, 2, 3)}, sizes, here, there)


@pytest.fixture(scope="module")
def client() -> Iterator[bw.Client]:
    with bw.connect("embedded") as connected:
        yield connected


BASIC = (perceptron, convolutions, attention, recurrence, autoencoder)
FURTHER = (residual_norms, unet, mixer, contrast, temporal)


@pytest.mark.parametrize("make", [*BASIC, *FURTHER])
def test_loss_and_gradients_are_those_of_torch(client: bw.Client, make: Callable[[], Model]) -> None:
    model = make()
    x = {name: bw.input(name, each.shape, dtype=each.dtype.name) for name, each in model.inputs.items()}
    p = {name: bw.parameter(name, each, dtype="float64") for name, each in model.parameters.items()}
    session = client.create_session(bw.graph(loss=model.here(x, p)))
    differentiable = [name for name, each in model.inputs.items() if each.dtype.kind == "f"]
    forward = session.forward(model.inputs)
    found = {**forward.backward(wrt=differentiable), **session.gradients()}

    tensors = {name: torch.tensor(each) for name, each in {**model.inputs, **model.parameters}.items()}
    for name in (*differentiable, *model.parameters):
        tensors[name].requires_grad_()
    expected = model.there(tensors, tensors)
    expected.backward()
    assert forward.loss == pytest.approx(expected.item(), rel=1e-12)
    for name in (*differentiable, *model.parameters):
        np.testing.assert_allclose(found[name], tensors[name].grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)
