"""Convolutional models: losses and gradients of all parameters and inputs are PyTorch's."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
F: Any = torch.nn.functional


def test_convolutions(bench: "TorchBench") -> None:
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

    sizes = {
        "k1": bench.normal(4, 3, 3, 3),
        "c1": bench.normal(4),
        "k2": bench.normal(4, 2, 3, 3),
        "w": bench.normal(16, 3),
    }
    bench.compare({"x": bench.normal(2, 3, 11, 11), "y": bench.labels(2, classes=3)}, sizes, here, there)


def test_residual_norms(bench: "TorchBench") -> None:
    def block(h: bw.Value, p: dict[str, bw.Value], i: str) -> bw.Value:
        statistics = [bench.constant(np.full(4, value)) for value in (0.0, 1.0)]
        inputs = (bw.conv(h, p["k" + i], padding=1), p["g" + i], p["s" + i], *statistics)
        return bw.op("BatchNormalization", *inputs, attributes={"training_mode": 1}, shape=h.shape)[0]

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.conv(x["x"], p["stem"], padding=1)
        h = bw.relu(h + block(bw.relu(block(h, p, "1")), p, "2"))
        return bw.softmax_cross_entropy(bw.flatten(bw.global_average_pool(h)) @ p["w"], x["y"])

    def there(x: Any, p: Any) -> Any:
        def block(h: Any, i: str) -> Any:
            return F.batch_norm(F.conv2d(h, p["k" + i], padding=1), None, None, p["g" + i], p["s" + i], training=True)

        h = F.conv2d(x["x"], p["stem"], padding=1)
        h = F.relu(h + block(F.relu(block(h, "1")), "2"))
        return F.cross_entropy(h.mean((2, 3)) @ p["w"], x["y"])

    sizes = {
        "stem": bench.normal(4, 2, 3, 3),
        "k1": bench.normal(4, 4, 3, 3),
        "k2": bench.normal(4, 4, 3, 3),
        "w": bench.normal(4, 3),
    }
    sizes.update((name, bench.normal(4)) for name in ("g1", "s1", "g2", "s2"))
    bench.compare({"x": bench.normal(3, 2, 5, 5), "y": bench.labels(3, classes=3)}, sizes, here, there)


def test_unet(bench: "TorchBench") -> None:
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
        "down1": bench.normal(3, 1, 3, 3),
        "down2": bench.normal(4, 3, 3, 3),
        "up": bench.normal(4, 3, 2, 2),
        "out": bench.normal(1, 6, 1, 1),
    }
    bench.compare({"x": bench.normal(2, 1, 6, 6), "mask": bench.uniform(2, 1, 6, 6)}, sizes, here, there)


def test_temporal(bench: "TorchBench") -> None:
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

    sizes = {"k1": bench.normal(4, 3, 3), "c1": bench.normal(4), "k2": bench.normal(2, 2, 3)}
    bench.compare({"x": bench.normal(2, 3, 9), "y": bench.normal(2, 2, 3)}, sizes, here, there)


def test_running_statistics(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.relu(bw.batch_norm(bw.conv(x["x"], p["stem"], padding=1), name="first"))
        h = bw.relu(h + bw.batch_norm(bw.conv(h, p["k"], padding=1), name="second", momentum=0.7))
        return bw.softmax_cross_entropy(bw.flatten(bw.global_average_pool(h)) @ p["w"], x["y"])

    def there(x: Any, p: Any) -> Any:
        def norm(h: Any, name: str, momentum: float) -> Any:
            mean, variance = p[f"{name}/mean"], p[f"{name}/variance"]
            y = F.batch_norm(h, None, None, p[f"{name}/scale"], p[f"{name}/bias"], training=True)
            mean.lerp_(h.detach().mean((0, 2, 3)), momentum)
            variance.lerp_(h.detach().var((0, 2, 3), unbiased=False), momentum)  # ONNX's; PyTorch keeps the unbiased
            return y

        h = F.relu(norm(F.conv2d(x["x"], p["stem"], padding=1), "first", 0.1))
        h = F.relu(h + norm(F.conv2d(h, p["k"], padding=1), "second", 0.3))
        return F.cross_entropy(h.mean((2, 3)) @ p["w"], x["y"])

    sizes = {"stem": bench.normal(4, 2, 3, 3), "k": bench.normal(4, 4, 3, 3), "w": bench.normal(4, 3)}
    layers = {f"{norm}/{part}": bench.normal(4) for norm in ("first", "second") for part in ("scale", "bias")}
    state = {f"{norm}/mean": bench.normal(4) for norm in ("first", "second")}
    state.update((f"{norm}/variance", bench.uniform(4, low=0.5)) for norm in ("first", "second"))
    inputs = {"x": bench.normal(3, 2, 5, 5), "y": bench.labels(3, classes=3)}
    bench.compare(inputs, sizes, here, there, layers, state)


def test_separable_convolutions_that_excite(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.conv(bw.conv(x["x"], p["deep"], groups=3, stride=2, padding=1), p["point"], p["c"])
        (h,) = bw.op("HardSwish", h, shape=h.shape)
        squeezed = bw.relu(bw.flatten(bw.global_average_pool(h)) @ p["squeeze"])
        (gates,) = bw.op("HardSigmoid", squeezed @ p["excite"], attributes={"alpha": 0.25}, shape=(2, 6))
        h = h * bw.reshape(gates, (2, 6, 1, 1))
        return bw.softmax_cross_entropy(bw.flatten(bw.global_average_pool(h**2)) @ p["w"], x["y"])

    def there(x: Any, p: Any) -> Any:
        h = F.hardswish(F.conv2d(F.conv2d(x["x"], p["deep"], groups=3, stride=2, padding=1), p["point"], p["c"]))
        gates = (F.relu(h.mean((2, 3)) @ p["squeeze"]) @ p["excite"] / 4 + 0.5).clamp(0, 1)
        h = h * gates[:, :, None, None]
        return F.cross_entropy((h**2).mean((2, 3)) @ p["w"], x["y"])

    sizes = {"deep": bench.normal(6, 1, 3, 3), "point": bench.normal(6, 6, 1, 1), "c": bench.normal(6)}
    sizes.update(squeeze=bench.normal(6, 2), excite=bench.normal(2, 6), w=bench.normal(6, 3))
    bench.compare({"x": bench.normal(2, 3, 7, 6), "y": bench.labels(2, classes=3)}, sizes, here, there)


def test_dense_block_with_group_norms(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = x["x"]
        for i in range(3):
            (normal,) = bw.op(
                "GroupNormalization", h, p[f"g{i}"], p[f"s{i}"], attributes={"num_groups": 2}, shape=h.shape
            )
            h = bw.concat([h, bw.conv(bw.elu(normal), p[f"k{i}"], padding=1)], axis=1)
        h = bw.average_pool2d(h, 3, stride=2, padding=1)
        return bw.squared_error(bw.conv(h, p["w"]), x["y"])

    def there(x: Any, p: Any) -> Any:
        h = x["x"]
        for i in range(3):
            normal = F.group_norm(h, 2, p[f"g{i}"], p[f"s{i}"])
            h = torch.cat([h, F.conv2d(F.elu(normal), p[f"k{i}"], padding=1)], 1)
        h = F.avg_pool2d(h, 3, stride=2, padding=1, count_include_pad=False)
        return F.mse_loss(F.conv2d(h, p["w"]), x["y"])

    sizes = {f"k{i}": bench.normal(2, 4 + 2 * i, 3, 3) for i in range(3)}
    sizes.update((f"{name}{i}", bench.normal(4 + 2 * i)) for i in range(3) for name in "gs")
    sizes["w"] = bench.normal(2, 10, 1, 1)
    bench.compare({"x": bench.normal(2, 4, 5, 5), "y": bench.normal(2, 2, 3, 3)}, sizes, here, there)


def test_style_transfer_with_instance_norms(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        (h,) = bw.op("Pad", x["x"], [0, 0, 1, 1, 0, 0, 1, 1], attributes={"mode": "reflect"}, shape=(2, 2, 7, 6))
        h = bw.conv(h, p["k"], stride=2)
        (h,) = bw.op("InstanceNormalization", h, p["g"], p["s"], shape=h.shape)
        (h,) = bw.op("PRelu", h, bw.reshape(p["slope"], (3, 1, 1)), shape=h.shape)
        (h,) = bw.op("Resize", h, None, None, [2, 3, 6, 6], attributes={"mode": "linear"}, shape=(2, 3, 6, 6))
        (mixed,) = bw.op("Einsum", h, h, attributes={"equation": "nahw,nbhw->nab"}, shape=(2, 3, 3))
        return bw.squared_error(mixed / 36.0, x["gram"])

    def there(x: Any, p: Any) -> Any:
        h = F.conv2d(F.pad(x["x"], (1, 1, 1, 1), mode="reflect"), p["k"], stride=2)
        h = F.prelu(F.instance_norm(h, weight=p["g"], bias=p["s"]), p["slope"])
        h = F.interpolate(h, size=(6, 6), mode="bilinear")
        return F.mse_loss(torch.einsum("nahw,nbhw->nab", h, h) / 36, x["gram"])

    sizes = {"k": bench.normal(3, 2, 3, 3), "g": bench.normal(3), "s": bench.normal(3), "slope": bench.normal(3)}
    bench.compare({"x": bench.normal(2, 2, 5, 4), "gram": bench.normal(2, 3, 3)}, sizes, here, there)
