"""Dense models and losses: losses and gradients of all parameters and inputs are PyTorch's."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
F: Any = torch.nn.functional


def test_perceptron(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.gelu(x["x"] @ p["w1"] + p["b1"])
        h = bw.elu(bw.leaky_relu(h @ p["w2"] + p["b2"]) * bw.softplus(h))
        return bw.softmax_cross_entropy(h @ p["w3"], x["y"])

    def there(x: Any, p: Any) -> Any:
        h = F.gelu(x["x"] @ p["w1"] + p["b1"])
        h = F.elu(F.leaky_relu(h @ p["w2"] + p["b2"]) * F.softplus(h))
        return F.cross_entropy(h @ p["w3"], x["y"])

    sizes = {
        "w1": bench.normal(6, 8),
        "b1": bench.normal(8),
        "w2": bench.normal(8, 8),
        "b2": bench.normal(8),
        "w3": bench.normal(8, 5),
    }
    bench.compare({"x": bench.normal(4, 6), "y": bench.labels(4, classes=5)}, sizes, here, there)


def test_autoencoder(bench: "TorchBench") -> None:
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
        return F.binary_cross_entropy_with_logits(output, x["x01"], reduction="sum") + divergence

    inputs = {"x": bench.normal(3, 5), "x01": bench.uniform(3, 5), "noise": bench.normal(3, 2)}
    sizes = {
        "in": bench.normal(5, 6),
        "code": bench.normal(6, 4),
        "out": bench.normal(2, 6),
        "last": bench.normal(6, 5),
    }
    bench.compare(inputs, sizes, here, there)


def test_contrast(bench: "TorchBench") -> None:
    def unit(h: bw.Value) -> bw.Value:
        return h / bw.sqrt(bw.sum(h**2, axis=1, keepdims=True))

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        scores = unit(bw.tanh(x["a"] @ p["left"])) @ unit(x["b"] @ p["right"]).T * bw.exp(p["heat"])
        both = [bw.softmax_cross_entropy(each, x["same"]) for each in (scores, scores.T)]
        return (both[0] + both[1]) / 2

    def there(x: Any, p: Any) -> Any:
        scores = F.normalize(torch.tanh(x["a"] @ p["left"])) @ F.normalize(x["b"] @ p["right"]).T * p["heat"].exp()
        return (F.cross_entropy(scores, x["same"]) + F.cross_entropy(scores.T, x["same"])) / 2

    inputs = {"a": bench.normal(4, 5), "b": bench.normal(4, 6), "same": np.arange(4)}
    bench.compare(
        inputs, {"left": bench.normal(5, 3), "right": bench.normal(6, 3), "heat": bench.normal()}, here, there
    )


def test_siamese_triplets_with_a_hinge(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        def placed(h: bw.Value) -> bw.Value:
            return bw.elu(h @ p["w"] + p["b"]) @ p["v"]

        def apart(a: bw.Value, b: bw.Value) -> bw.Value:
            return bw.op("ReduceL2", a - b + 1e-6, [1], attributes={"keepdims": 0}, shape=(5,))[0]

        anchor, same, other = (placed(x[name]) for name in ("anchor", "same", "other"))
        return bw.mean(bw.relu(apart(anchor, same) - apart(anchor, other) + 0.5))

    def there(x: Any, p: Any) -> Any:
        anchor, same, other = (F.elu(x[n] @ p["w"] + p["b"]) @ p["v"] for n in ("anchor", "same", "other"))
        return F.triplet_margin_loss(anchor, same, other, margin=0.5)

    inputs = {name: bench.normal(5, 4) for name in ("anchor", "same", "other")}
    bench.compare(inputs, {"w": bench.normal(4, 6), "b": bench.normal(6), "v": bench.normal(6, 3)}, here, there)


def test_gated_units_with_focal_loss(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        value, gate = bw.split(x["x"] @ p["w"] + p["b"], 2, axis=1)
        (h,) = bw.op("Mish", value * bw.sigmoid(gate), shape=(6, 5))
        score = bw.reshape(h @ p["v"], (6,))
        right = bw.sigmoid(bw.where(x["y"] > 0, score, -score))
        return -bw.mean((1.0 - right) ** 2 * bw.log(right) * bw.where(x["y"] > 0, 0.25, bench.constant(0.75)))

    def there(x: Any, p: Any) -> Any:
        score = (F.mish(F.glu(x["x"] @ p["w"] + p["b"], 1)) @ p["v"])[:, 0]
        right = torch.sigmoid(torch.where(x["y"] > 0, score, -score))
        return -((1 - right) ** 2 * right.log() * torch.where(x["y"] > 0, 0.25, 0.75).to(right.dtype)).mean()

    sizes = {"w": bench.normal(4, 10), "b": bench.normal(10), "v": bench.normal(5, 1)}
    bench.compare({"x": bench.normal(6, 4), "y": bench.labels(6, classes=2)}, sizes, here, there)


def test_graph_convolutions(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        edges = x["edges"] + bench.constant(np.eye(6))
        root = bw.sqrt(bw.sum(edges, axis=1, keepdims=True))
        spread = edges / root / root.T
        h = spread @ bw.relu(spread @ x["x"] @ p["w1"] + p["b"]) @ p["w2"]
        kept = bw.log_softmax(h)[:4]
        return bw.op("NegativeLogLikelihoodLoss", kept, x["y"], p["costs"], shape=())[0]

    def there(x: Any, p: Any) -> Any:
        edges = x["edges"] + torch.eye(6, dtype=p["b"].dtype)
        root = edges.sum(1, keepdim=True).sqrt()
        spread = edges / root / root.T
        h = torch.log_softmax(spread @ F.relu(spread @ x["x"] @ p["w1"] + p["b"]) @ p["w2"], 1)[:4]
        costs = p["costs"][x["y"]]  # nll_loss has no gradient for its weights
        return -(h.gather(1, x["y"][:, None])[:, 0] * costs).sum() / costs.sum()

    inputs = {"x": bench.normal(6, 3), "edges": bench.uniform(6, 6), "y": bench.labels(4, classes=3)}
    sizes = {"w1": bench.normal(3, 5), "b": bench.normal(5), "w2": bench.normal(5, 3)}
    bench.compare(inputs, {**sizes, "costs": bench.uniform(3, low=0.5)}, here, there)


def test_hypernetwork(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        made = bw.tanh(x["task"] @ p["in"]) @ p["out"]
        w, b = bw.split(made, [12, 4], axis=1)
        h = bw.op("Softsign", x["x"] @ bw.reshape(w, (2, 3, 4)) + bw.reshape(b, (2, 1, 4)), shape=(2, 5, 4))[0]
        return bw.squared_error(h @ p["last"], x["y"])

    def there(x: Any, p: Any) -> Any:
        w, b = (torch.tanh(x["task"] @ p["in"]) @ p["out"]).split([12, 4], 1)
        return F.mse_loss(F.softsign(x["x"] @ w.reshape(2, 3, 4) + b[:, None]) @ p["last"], x["y"])

    inputs = {"task": bench.normal(2, 3), "x": bench.normal(2, 5, 3), "y": bench.normal(2, 5, 1)}
    bench.compare(
        inputs, {"in": bench.normal(3, 4), "out": bench.normal(4, 16), "last": bench.normal(4, 1)}, here, there
    )


def test_physics_informed_by_gradients_in_the_graph(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        u = bw.tanh(bw.tanh(x["x"] @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]) @ p["w3"]
        (slope,) = bw.gradient(u, [x["x"]])
        (bend,) = bw.gradient(slope[:, 0:1], [x["x"]])
        residual = slope[:, 1:2] - bw.exp(p["rate"]) * bend[:, 0:1]
        return bw.mean(residual**2) + bw.squared_error(u, x["u"])

    def there(x: Any, p: Any) -> Any:
        u = torch.tanh(torch.tanh(x["x"] @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]) @ p["w3"]
        (slope,) = torch.autograd.grad(u.sum(), x["x"], create_graph=True)
        (bend,) = torch.autograd.grad(slope[:, 0].sum(), x["x"], create_graph=True)
        residual = slope[:, 1:2] - p["rate"].exp() * bend[:, 0:1]
        return (residual**2).mean() + F.mse_loss(u, x["u"])

    sizes = {"w1": bench.normal(2, 6), "b1": bench.normal(6), "w2": bench.normal(6, 6), "b2": bench.normal(6)}
    sizes.update(w3=bench.normal(6, 1), rate=bench.normal())
    bench.compare({"x": bench.normal(5, 2), "u": bench.normal(5, 1)}, sizes, here, there)


def test_factorization_machine_with_embeddings(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        table = bw.take(p["table"], x["fields"])
        crossed = bw.sum(bw.sum(table, axis=1) ** 2 - bw.sum(table**2, axis=1), axis=1) / 2.0
        deep = bw.reshape(bw.leaky_relu(bw.reshape(table, (4, 12)) @ p["w"]) @ p["v"], (4,))
        score = crossed + deep + bw.sum(bw.take(p["each"], x["fields"]), axis=1) + p["b"]
        return bw.sigmoid_cross_entropy(score, x["clicked"]) + 0.01 * bw.sum(p["table"] ** 2)

    def there(x: Any, p: Any) -> Any:
        table = F.embedding(x["fields"], p["table"])
        crossed = (table.sum(1) ** 2 - (table**2).sum(1)).sum(1) / 2
        deep = (F.leaky_relu(table.reshape(4, 12) @ p["w"]) @ p["v"])[:, 0]
        score = crossed + deep + p["each"][x["fields"]].sum(1) + p["b"]
        return F.binary_cross_entropy_with_logits(score, x["clicked"]) + 0.01 * (p["table"] ** 2).sum()

    inputs = {"fields": bench.labels(4, 3, classes=9), "clicked": bench.uniform(4)}
    sizes = {"table": bench.normal(9, 4), "each": bench.normal(9), "b": bench.normal()}
    bench.compare(inputs, {**sizes, "w": bench.normal(12, 5), "v": bench.normal(5, 1)}, here, there)
