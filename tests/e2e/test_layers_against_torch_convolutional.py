"""Convolution, pooling and normalization layers: losses and gradients of all parameters and inputs are PyTorch's."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
F: Any = torch.nn.functional

Values = dict[str, bw.Value]
SPATIAL = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolution(axes: int, bench: "TorchBench") -> None:
    layer, there = getattr(bw, f"conv{axes}d"), getattr(F, f"conv{axes}d")
    options = {"stride": (2, 1, 1)[:axes] if axes > 1 else 2, "padding": 1, "groups": 2}
    layers = {"c/weight": bench.normal(6, 2, *[3] * axes), "c/bias": bench.normal(6)}
    bench.compare(
        {"x": bench.normal(2, 4, *SPATIAL[axes])},
        {},
        lambda x, _: bw.mean(layer(x["x"], 6, 3, name="c", **options) ** 2),
        lambda x, p: (there(x["x"], p["c/weight"], p["c/bias"], **options) ** 2).mean(),
        layers,
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_dilated_convolution_that_keeps_the_size(axes: int, bench: "TorchBench") -> None:
    layer, there = getattr(bw, f"conv{axes}d"), getattr(F, f"conv{axes}d")
    bench.compare(
        {"x": bench.normal(1, 2, *SPATIAL[axes])},
        {},
        lambda x, _: bw.mean(layer(x["x"], 3, 3, name="c", padding="same", dilation=2, use_bias=False) ** 2),
        lambda x, p: (there(x["x"], p["c/weight"], padding="same", dilation=2) ** 2).mean(),
        {"c/weight": bench.normal(3, 2, *[3] * axes)},
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_convolution(axes: int, bench: "TorchBench") -> None:
    layer, there = getattr(bw, f"conv_transpose{axes}d"), getattr(F, f"conv_transpose{axes}d")
    options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
    layers = {"c/weight": bench.normal(4, 3, *[3] * axes), "c/bias": bench.normal(6)}
    bench.compare(
        {"x": bench.normal(2, 4, *SPATIAL[axes])},
        {},
        lambda x, _: bw.mean(layer(x["x"], 6, 3, name="c", **options) ** 2),
        lambda x, p: (there(x["x"], p["c/weight"], p["c/bias"], **options) ** 2).mean(),
        layers,
    )


POOLS: dict[str, tuple[Callable[..., bw.Value], Callable[..., Any], int]] = {
    "max 1d": (lambda x: bw.max_pool1d(x, 3, stride=2, padding=1), lambda x: F.max_pool1d(x, 3, 2, 1), 1),
    "max 2d": (lambda x: bw.max_pool2d(x, (3, 2)), lambda x: F.max_pool2d(x, (3, 2)), 2),
    "max 3d": (lambda x: bw.max_pool3d(x, 2, stride=1), lambda x: F.max_pool3d(x, 2, 1), 3),
    "dilated max": (lambda x: bw.max_pool2d(x, 2, stride=1, dilation=2), lambda x: F.max_pool2d(x, 2, 1, 0, 2), 2),
    "average 1d": (
        lambda x: bw.average_pool1d(x, 3, stride=2, padding=1),
        lambda x: F.avg_pool1d(x, 3, 2, 1, count_include_pad=False),
        1,
    ),
    "average 2d": (
        lambda x: bw.average_pool2d(x, 3, stride=2, padding=1, count_padding=True),
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        2,
    ),
    "average 3d": (lambda x: bw.average_pool3d(x, (2, 1, 3)), lambda x: F.avg_pool3d(x, (2, 1, 3)), 3),
    "global average": (bw.global_average_pool, lambda x: F.adaptive_avg_pool2d(x, 1), 2),
    "global max": (bw.global_max_pool, lambda x: F.adaptive_max_pool3d(x, 1), 3),
    "adaptive average 1d": (lambda x: bw.adaptive_average_pool1d(x, 4), lambda x: F.adaptive_avg_pool1d(x, 4), 1),
    "adaptive average 2d": (
        lambda x: bw.adaptive_average_pool2d(x, (3, 4)),
        lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
        2,
    ),
    "adaptive average 3d": (lambda x: bw.adaptive_average_pool3d(x, 3), lambda x: F.adaptive_avg_pool3d(x, 3), 3),
    "adaptive max 1d": (lambda x: bw.adaptive_max_pool1d(x, 4), lambda x: F.adaptive_max_pool1d(x, 4), 1),
    "adaptive max 2d": (lambda x: bw.adaptive_max_pool2d(x, (3, 4)), lambda x: F.adaptive_max_pool2d(x, (3, 4)), 2),
    "adaptive max 3d": (lambda x: bw.adaptive_max_pool3d(x, 3), lambda x: F.adaptive_max_pool3d(x, 3), 3),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling(name: str, bench: "TorchBench") -> None:
    here, there, axes = POOLS[name]
    bench.compare(
        {"x": bench.normal(2, 3, *SPATIAL[axes])},
        {},
        lambda x, _: bw.sum(bw.tanh(here(x["x"])) ** 2),
        lambda x, _: (torch.tanh(there(x["x"])) ** 2).sum(),
    )


NORMS: dict[str, tuple[Callable[..., bw.Value], Callable[..., Any], tuple[str, ...], tuple[int, ...]]] = {
    "group": (
        lambda x: bw.group_norm(x, 3, name="n"),
        lambda x, p: F.group_norm(x, 3, p["n/scale"], p["n/bias"]),
        ("n/scale", "n/bias"),
        (6,),
    ),
    "instance": (
        lambda x: bw.instance_norm(x, name="n"),
        lambda x, p: F.instance_norm(x, weight=p["n/scale"], bias=p["n/bias"]),
        ("n/scale", "n/bias"),
        (6,),
    ),
    "layer": (
        lambda x: bw.layer_norm(x, name="n", axes=2),
        lambda x, p: F.layer_norm(x, (5, 4), p["n/scale"], p["n/bias"]),
        ("n/scale", "n/bias"),
        (5, 4),
    ),
    "root mean square": (
        lambda x: bw.rms_norm(x, name="n", epsilon=1e-3),
        lambda x, p: F.rms_norm(x, (4,), p["n/scale"], eps=1e-3),
        ("n/scale",),
        (4,),
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalization(name: str, bench: "TorchBench") -> None:
    here, there, parameters, shape = NORMS[name]
    bench.compare(
        {"x": bench.normal(2, 6, 5, 4), "y": bench.normal(2, 6, 5, 4)},
        {},
        lambda x, _: bw.squared_error(here(x["x"]), x["y"]),
        lambda x, p: F.mse_loss(there(x["x"], p), x["y"]),
        {each: bench.normal(*shape) for each in parameters},
    )


def test_batch_normalization_moves_its_running_statistics(bench: "TorchBench") -> None:
    bench.compare(
        {"x": bench.normal(8, 3, 4), "y": bench.normal(8, 3, 4)},
        {},
        lambda x, _: bw.squared_error(bw.batch_norm(x["x"], name="n", momentum=0.8), x["y"]),
        lambda x, p: F.mse_loss(_population_norm(x["x"], p), x["y"]),
        {"n/scale": bench.normal(3), "n/bias": bench.normal(3)},
        {"n/mean": bench.normal(3), "n/variance": bench.uniform(3, low=0.5)},
    )


def _population_norm(x: Any, p: Any) -> Any:
    """PyTorch's batch norm, with the running variance that of the batch itself rather than the unbiased estimate."""
    mean, variance = x.mean((0, 2)), x.var((0, 2), correction=0)
    with torch.no_grad():
        for running, found in ((p["n/mean"], mean), (p["n/variance"], variance)):
            running.mul_(0.8).add_(0.2 * found)
    return F.batch_norm(x, None, None, p["n/scale"], p["n/bias"], training=True)
