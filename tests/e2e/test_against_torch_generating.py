"""Models that generate: losses and gradients of all parameters and inputs are PyTorch's."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
F: Any = torch.nn.functional


def test_segmentation_with_unpooling(bench: "TorchBench") -> None:
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.conv(x["x"], p["in"], padding=1)
        pooled, places = bw.op("MaxPool", h, attributes=window, shape=(2, 3, 2, 3), outputs=2)
        (h,) = bw.op("MaxUnpool", bw.sigmoid(pooled), bw.cast(places, "int64"), attributes=window, shape=h.shape)
        return bw.squared_error(bw.conv(h, p["out"], p["c"], padding=1), x["y"])

    def there(x: Any, p: Any) -> Any:
        pooled, places = F.max_pool2d(F.conv2d(x["x"], p["in"], padding=1), 2, return_indices=True)
        h = F.max_unpool2d(torch.sigmoid(pooled), places, 2)
        return F.mse_loss(F.conv2d(h, p["out"], p["c"], padding=1), x["y"])

    sizes = {"in": bench.normal(3, 1, 3, 3), "out": bench.normal(1, 3, 3, 3), "c": bench.normal(1)}
    bench.compare({"x": bench.normal(2, 1, 4, 6), "y": bench.normal(2, 1, 4, 6)}, sizes, here, there)


def test_super_resolution_by_shuffled_pixels(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.leaky_relu(bw.conv(x["x"], p["in"], padding="same"), 0.2)
        h = bw.conv(h, p["out"], padding="same")
        (h,) = bw.op("DepthToSpace", h, attributes={"blocksize": 2, "mode": "CRD"}, shape=(2, 1, 6, 8))
        return bw.mean(bw.sqrt((h - x["y"]) ** 2 + 1e-3))

    def there(x: Any, p: Any) -> Any:
        h = F.leaky_relu(F.conv2d(x["x"], p["in"], padding="same"), 0.2)
        h = F.pixel_shuffle(F.conv2d(h, p["out"], padding="same"), 2)
        return ((h - x["y"]) ** 2 + 1e-3).sqrt().mean()

    sizes = {"in": bench.normal(3, 1, 3, 3), "out": bench.normal(4, 3, 3, 3)}
    bench.compare({"x": bench.normal(2, 1, 3, 4), "y": bench.normal(2, 1, 6, 8)}, sizes, here, there)


def test_critic_with_gradient_penalty(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        def critic(h: bw.Value) -> bw.Value:
            return bw.tanh(h @ p["w1"] + p["b1"]) @ p["w2"]

        generated = bw.softplus(x["noise"] @ p["g"])
        between = x["part"] * x["real"] + (1.0 - x["part"]) * generated
        (slope,) = bw.gradient(critic(between), [between])
        size = bw.sqrt(bw.sum(slope**2, axis=1) + 1e-6)
        return bw.mean(critic(generated)) - bw.mean(critic(x["real"])) + 10.0 * bw.mean((size - 1.0) ** 2)

    def there(x: Any, p: Any) -> Any:
        def critic(h: Any) -> Any:
            return torch.tanh(h @ p["w1"] + p["b1"]) @ p["w2"]

        generated = F.softplus(x["noise"] @ p["g"])
        between = x["part"] * x["real"] + (1 - x["part"]) * generated
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        size = ((slope**2).sum(1) + 1e-6).sqrt()
        return critic(generated).mean() - critic(x["real"]).mean() + 10 * ((size - 1) ** 2).mean()

    inputs = {"real": bench.normal(4, 3), "noise": bench.normal(4, 2), "part": bench.uniform(4, 1)}
    sizes = {"g": bench.normal(2, 3), "w1": bench.normal(3, 5), "b1": bench.normal(5), "w2": bench.normal(5, 1)}
    bench.compare(inputs, sizes, here, there)


def test_mixture_density(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        share, mean, spread = bw.split(bw.tanh(x["x"] @ p["in"]) @ p["out"], 3, axis=1)
        score = (bw.reshape(x["y"], (5, 1)) - mean) * bw.exp(-spread)
        terms = bw.log_softmax(share) - spread - score**2 / 2.0
        (likelihood,) = bw.op("ReduceLogSumExp", terms, [1], attributes={"keepdims": 0}, shape=(5,))
        return -bw.mean(likelihood)

    def there(x: Any, p: Any) -> Any:
        share, mean, spread = (torch.tanh(x["x"] @ p["in"]) @ p["out"]).chunk(3, 1)
        score = (x["y"][:, None] - mean) * torch.exp(-spread)
        return -torch.logsumexp(F.log_softmax(share, 1) - spread - score**2 / 2, 1).mean()

    sizes = {"in": bench.normal(2, 6), "out": bench.normal(6, 9)}
    bench.compare({"x": bench.normal(5, 2), "y": bench.normal(5)}, sizes, here, there)


def test_coupling_flow(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        a, b = bw.split(x["x"], 2, axis=1)
        total: bw.Value = bench.constant(np.zeros(4))
        for i in range(2):
            scale, shift = bw.split(bw.tanh(a @ p[f"s{i}"]) @ p[f"t{i}"], 2, axis=1)
            a, b = b * bw.exp(scale) + shift, a
            total = total + bw.sum(scale, axis=1)
        (volume,) = bw.op("Det", p["mix"], shape=())
        z = bw.concat([a, b], axis=1) @ p["mix"]
        return bw.mean(bw.sum(z**2, axis=1) / 2.0 - total) - bw.log(abs(volume))

    def there(x: Any, p: Any) -> Any:
        a, b = x["x"].chunk(2, 1)
        total = 0
        for i in range(2):
            scale, shift = (torch.tanh(a @ p[f"s{i}"]) @ p[f"t{i}"]).chunk(2, 1)
            a, b = b * torch.exp(scale) + shift, a
            total = total + scale.sum(1)
        z = torch.cat([a, b], 1) @ p["mix"]
        return ((z**2).sum(1) / 2 - total).mean() - torch.log(torch.abs(torch.det(p["mix"])))

    sizes = {f"s{i}": bench.normal(2, 5) for i in range(2)} | {f"t{i}": bench.normal(5, 4) for i in range(2)}
    bench.compare({"x": bench.normal(4, 4)}, {**sizes, "mix": bench.normal(4, 4)}, here, there)
