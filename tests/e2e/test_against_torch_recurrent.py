"""Recurrences: losses and gradients of all parameters and inputs are PyTorch's."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
F: Any = torch.nn.functional


def test_recurrence(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = cell = bench.constant(np.zeros((3, 4)))
        for t in range(6):
            gates = x["x"][:, t] @ p["w"].T + h @ p["u"].T + p["b"]
            i, f, g, o = bw.split(gates, 4, axis=1)
            cell = bw.sigmoid(f) * cell + bw.sigmoid(i) * bw.tanh(g)
            h = bw.sigmoid(o) * bw.tanh(cell)
        return bw.squared_error(h, x["y"])

    def there(x: Any, p: Any) -> Any:
        lstm = torch.nn.LSTM(2, 4, batch_first=True, dtype=p["w"].dtype)
        zeros = torch.zeros(16, dtype=p["w"].dtype)
        weights = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), (p["w"], p["u"], p["b"]), strict=True))
        _, (h, _) = torch.func.functional_call(lstm, {**weights, "bias_hh_l0": zeros}, (x["x"],))
        return F.mse_loss(h[0], x["y"])

    sizes = {"w": bench.normal(16, 2), "u": bench.normal(16, 4), "b": bench.normal(16)}
    bench.compare({"x": bench.normal(3, 6, 2), "y": bench.normal(3, 4)}, sizes, here, there)


def reordered(weights: bw.Value, order: str, *, axis: int = 0) -> bw.Value:
    """Returns the parts for the gates, as PyTorch stacks them, in the order of ONNX, with an axis for directions."""
    parts = bw.split(weights, len(order), axis=axis)
    return bw.unsqueeze(bw.concat([parts[int(place)] for place in order], axis=axis), 0)


def test_stack_of_bidirectional_lstms(bench: "TorchBench") -> None:
    names = [
        f"{part}_l{layer}{end}" for layer in (0, 1) for end in ("", "_reverse") for part in ("weight_ih", "bias_ih")
    ]
    names += [name.replace("_ih_", "_hh_") for name in names]

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.transpose(x["x"], (1, 0, 2))
        for layer in (0, 1):
            w, r, b, c = (
                bw.concat([reordered(p[f"{part}_l{layer}{end}"], "0312") for end in ("", "_reverse")], axis=0)
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            attributes: dict[str, int | str] = {"hidden_size": 3, "direction": "bidirectional"}
            y, _, cell = bw.op("LSTM", h, w, r, bw.concat([b, c], axis=1), attributes=attributes, outputs=3)
            h = bw.reshape(bw.op("Transpose", y, attributes={"perm": [0, 2, 1, 3]}, shape=(4, 2, 2, 3))[0], (4, 2, 6))
        (last,) = bw.op("ReduceSum", cell, [0], attributes={"keepdims": 0}, shape=(2, 3))
        return bw.softmax_cross_entropy(bw.mean(h, 0) @ p["w"], x["y"]) + bw.mean(last**2)

    def there(x: Any, p: Any) -> Any:
        stack = torch.nn.LSTM(2, 3, num_layers=2, bidirectional=True, batch_first=True, dtype=p["w"].dtype)
        h, (_, cell) = torch.func.functional_call(stack, {name: p[name] for name in names}, (x["x"],))
        return F.cross_entropy(h.mean(1) @ p["w"], x["y"]) + (cell[2:].sum(0) ** 2).mean()

    widths = {"weight_ih_l0": 2, "weight_ih_l1": 6, "weight_hh_l0": 3, "weight_hh_l1": 3}
    sizes = {name: bench.normal(12, *filter(None, [widths.get(name.removesuffix("_reverse"))])) for name in names}
    inputs = {"x": bench.normal(2, 4, 2), "y": bench.labels(2, classes=3)}
    bench.compare(inputs, {**sizes, "w": bench.normal(6, 3)}, here, there)


def test_gru_translates_with_ignored_padding(bench: "TorchBench") -> None:
    parts = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        def gru(side: str, h: bw.Value, start: bw.Value | None) -> tuple[bw.Value, bw.Value]:
            w, r, b, c = (reordered(p[f"{side}.{part}"], "102") for part in parts)
            attributes = {"hidden_size": 4, "linear_before_reset": 1}
            inputs = (h, w, r, bw.concat([b, c], axis=1), None, start)
            y, last = bw.op("GRU", *inputs, attributes=attributes, outputs=2)
            return bw.op("Squeeze", y, [1], shape=(None, 2, 4))[0], last

        source, state = gru("encoder", bw.take(p["table"], x["source"]), None)
        target, _ = gru("decoder", bw.take(p["table"], x["target"]), state)
        scores = bw.transpose(target, (1, 0, 2)) @ bw.transpose(source, (1, 2, 0))
        context = bw.softmax(scores) @ bw.transpose(source, (1, 0, 2))
        logits = bw.reshape(bw.transpose(target, (1, 0, 2)) + context, (6, 4)) @ p["table"].T
        labels, attributes = bw.reshape(x["next"], (6,)), {"ignore_index": 0}
        return bw.op("SoftmaxCrossEntropyLoss", logits, labels, attributes=attributes, shape=())[0]

    def there(x: Any, p: Any) -> Any:
        def gru(side: str, h: Any, start: Any) -> Any:
            layer = torch.nn.GRU(4, 4, dtype=h.dtype)
            return torch.func.functional_call(layer, {part: p[f"{side}.{part}"] for part in parts}, (h, start))

        source, state = gru("encoder", p["table"][x["source"]], None)
        target, _ = gru("decoder", p["table"][x["target"]], state)
        source, target = source.transpose(0, 1), target.transpose(0, 1)
        context = torch.softmax(target @ source.transpose(1, 2), -1) @ source
        logits = (target + context).reshape(6, 4) @ p["table"].T
        return F.cross_entropy(logits, x["next"].reshape(6), ignore_index=0)

    sizes = {f"{side}.{part}": bench.normal(12, 4) for side in ("encoder", "decoder") for part in parts[:2]}
    sizes.update((f"{side}.{part}", bench.normal(12)) for side in ("encoder", "decoder") for part in parts[2:])
    inputs = {"source": bench.labels(4, 2, classes=5), "target": bench.labels(3, 2, classes=5)}
    inputs["next"] = np.array([[3, 1, 0], [2, 0, 0]])
    bench.compare(inputs, {**sizes, "table": bench.normal(5, 4)}, here, there)


def test_kalman_filter(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        state, spread = p["start"], bench.constant(np.eye(2))
        loss: bw.Value | None = None
        for t in range(5):
            state, spread = p["a"] @ state, p["a"] @ spread @ p["a"].T + bw.exp(p["q"]) * bench.constant(np.eye(2))
            surprise = x["y"][t] - p["h"] @ state
            variance = p["h"] @ spread @ p["h"].T + bw.exp(p["r"])
            gain = spread @ p["h"].T / variance
            state, spread = state + gain @ surprise, spread - gain @ p["h"] @ spread
            term = bw.sum(surprise**2 / variance + bw.log(variance))
            loss = term if loss is None else loss + term
        assert loss is not None
        return loss / 2.0

    def there(x: Any, p: Any) -> Any:
        state, unit = p["start"], torch.eye(2, dtype=p["a"].dtype)
        spread, loss = unit, 0
        for t in range(5):
            state, spread = p["a"] @ state, p["a"] @ spread @ p["a"].T + p["q"].exp() * unit
            surprise = x["y"][t] - p["h"] @ state
            variance = p["h"] @ spread @ p["h"].T + p["r"].exp()
            gain = spread @ p["h"].T / variance
            state, spread = state + gain @ surprise, spread - gain @ p["h"] @ spread
            loss = loss + (surprise**2 / variance + variance.log()).sum()
        return loss / 2

    sizes = {"a": bench.normal(2, 2), "h": bench.normal(1, 2), "q": bench.normal(), "r": bench.normal()}
    bench.compare({"y": bench.normal(5, 1, 1)}, {**sizes, "start": bench.normal(2, 1)}, here, there)


def test_differential_equation_by_euler_and_runge_kutta(bench: "TorchBench") -> None:
    def solved(start: Any, slope: Any) -> Any:
        h = start
        for _ in range(3):
            h = h + 0.125 * slope(h)
        for _ in range(2):
            a = slope(h)
            b = slope(h + 0.125 * a)
            c = slope(h + 0.125 * b)
            h = h + (a + 2.0 * b + 2.0 * c + slope(h + 0.25 * c)) * (0.25 / 6.0)
        return h

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        end = solved(x["x"], lambda h: bw.tanh(h @ p["w"] + p["b"]) @ p["v"] - h * bw.softplus(p["decay"]))
        return bw.squared_error(end, x["y"])

    def there(x: Any, p: Any) -> Any:
        end = solved(x["x"], lambda h: torch.tanh(h @ p["w"] + p["b"]) @ p["v"] - h * F.softplus(p["decay"]))
        return F.mse_loss(end, x["y"])

    sizes = {"w": bench.normal(3, 5), "b": bench.normal(5), "v": bench.normal(5, 3), "decay": bench.normal(3)}
    bench.compare({"x": bench.normal(2, 3), "y": bench.normal(2, 3)}, sizes, here, there)


def test_selective_state_space(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        state, seen = bench.constant(np.zeros((2, 3, 4))), []
        for t in range(4):
            given = x["x"][:, t]
            step = bw.unsqueeze(bw.softplus(given @ p["step"]), 2)
            read, write = bw.split(given @ p["io"], 2, axis=1)
            state = bw.exp(-step * bw.exp(p["a"])) * state + step * bw.unsqueeze(given, 2) * bw.unsqueeze(write, 1)
            seen.append(bw.squeeze(state @ bw.unsqueeze(read, 2), 2) + given * p["skip"])
        return bw.squared_error(bw.stack(seen, 1), x["y"])

    def there(x: Any, p: Any) -> Any:
        state, seen = torch.zeros(2, 3, 4, dtype=p["a"].dtype), []
        for t in range(4):
            given = x["x"][:, t]
            step = F.softplus(given @ p["step"])[:, :, None]
            read, write = (given @ p["io"]).chunk(2, 1)
            state = torch.exp(-step * p["a"].exp()) * state + step * given[:, :, None] * write[:, None, :]
            seen.append((state @ read[:, :, None])[:, :, 0] + given * p["skip"])
        return F.mse_loss(torch.stack(seen, 1), x["y"])

    sizes = {"step": bench.normal(3, 3), "io": bench.normal(3, 8), "a": bench.normal(3, 4), "skip": bench.normal(3)}
    bench.compare({"x": bench.normal(2, 4, 3), "y": bench.normal(2, 4, 3)}, sizes, here, there)
