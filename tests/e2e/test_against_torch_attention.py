"""Transformers and mixers: losses and gradients of all parameters and inputs are PyTorch's."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
F: Any = torch.nn.functional


def test_attention(bench: "TorchBench") -> None:
    causal = np.triu(np.full((5, 5), -1e9), 1)

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        h = bw.take(p["table"], x["tokens"])
        q, k, v = (bw.transpose(bw.reshape(h @ p[n], (2, 5, 2, 3)), (0, 2, 1, 3)) for n in ("q", "k", "v"))
        scores = q @ bw.transpose(k, (0, 1, 3, 2)) * 3**-0.5 + bench.constant(causal)
        h = h + bw.reshape(bw.transpose(bw.softmax(scores) @ v, (0, 2, 1, 3)), (2, 5, 6))
        centred = h - bw.mean(h, -1, keepdims=True)
        h = centred / bw.sqrt(bw.mean(centred**2, -1, keepdims=True) + 1e-5) * p["gain"]
        logits = bw.reshape(h @ p["table"].T, (10, 7))
        return bw.softmax_cross_entropy(logits, bw.reshape(x["next"], (10,)))

    def there(x: Any, p: Any) -> Any:
        h = p["table"][x["tokens"]]
        q, k, v = ((h @ p[n]).reshape(2, 5, 2, 3).transpose(1, 2) for n in ("q", "k", "v"))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + mixed.transpose(1, 2).reshape(2, 5, 6)
        h = F.layer_norm(h, (6,), p["gain"], eps=1e-5)
        return F.cross_entropy((h @ p["table"].T).reshape(10, 7), x["next"].reshape(10))

    sizes = {
        "table": bench.normal(7, 6),
        "q": bench.normal(6, 6),
        "k": bench.normal(6, 6),
        "v": bench.normal(6, 6),
        "gain": bench.normal(6),
    }
    bench.compare({"tokens": bench.labels(2, 5, classes=7), "next": bench.labels(2, 5, classes=7)}, sizes, here, there)


def test_mixer(bench: "TorchBench") -> None:
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

    sizes = {
        "embed": bench.normal(5, 4),
        "t1": bench.normal(6, 8),
        "t2": bench.normal(8, 6),
        "c1": bench.normal(4, 8),
        "c2": bench.normal(8, 4),
    }
    sizes.update((name, bench.normal(4)) for name in ("g1", "s1", "g2", "s2"))
    bench.compare(
        {"x": bench.normal(2, 6, 5), "y": bench.labels(2, classes=3)}, {**sizes, "w": bench.normal(4, 3)}, here, there
    )


def test_encoder_with_padding_mask(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        mask = bw.reshape(x["kept"], (2, 1, 1, 5)) > 0.5
        q, k, v = bw.split(x["x"] @ p["qkv"], 3, axis=2)
        heads = {"q_num_heads": 2, "kv_num_heads": 2}
        (mixed,) = bw.op("Attention", q, k, v, mask, attributes=heads, shape=(2, 5, 6))
        (h,) = bw.op("LayerNormalization", x["x"] + mixed @ p["o"], p["g1"], p["s1"], shape=(2, 5, 6))
        inner = bw.gelu(h @ p["up"]) @ p["down"]
        (h,) = bw.op("LayerNormalization", h + inner, p["g2"], p["s2"], shape=(2, 5, 6))
        weights = bw.reshape(x["kept"], (2, 5, 1))
        pooled = bw.sum(h * weights, axis=1) / bw.sum(weights, axis=1)
        return bw.softmax_cross_entropy(pooled @ p["w"], x["y"])

    def there(x: Any, p: Any) -> Any:
        mask = x["kept"][:, None, None, :] > 0.5
        q, k, v = (each.reshape(2, 5, 2, 3).transpose(1, 2) for each in (x["x"] @ p["qkv"]).chunk(3, 2))
        mixed = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(2, 5, 6)
        h = F.layer_norm(x["x"] + mixed @ p["o"], (6,), p["g1"], p["s1"])
        h = F.layer_norm(h + F.gelu(h @ p["up"]) @ p["down"], (6,), p["g2"], p["s2"])
        weights = x["kept"][:, :, None]
        return F.cross_entropy((h * weights).sum(1) / weights.sum(1) @ p["w"], x["y"])

    kept = np.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bench.dtype)
    sizes = {"qkv": bench.normal(6, 18), "o": bench.normal(6, 6), "up": bench.normal(6, 8), "down": bench.normal(8, 6)}
    sizes.update((name, bench.normal(6)) for name in ("g1", "s1", "g2", "s2"))
    inputs = {"x": bench.normal(2, 5, 6), "kept": kept, "y": bench.labels(2, classes=3)}
    bench.compare(inputs, {**sizes, "w": bench.normal(6, 3)}, here, there)


def test_cross_attention_with_smoothed_labels(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        words = bw.take(p["table"], x["words"]) + p["places"]
        q, k, v = words @ p["q"], x["memory"] @ p["k"], x["memory"] @ p["v"]
        h = words + bw.softmax(q @ bw.transpose(k, (0, 2, 1)) / 2.0) @ v
        logits = bw.reshape(h @ p["table"].T, (8, 7))
        wanted = bw.one_hot(bw.reshape(x["next"], (8,)), 7, dtype=bench.dtype) * 0.9 + 0.1 / 7
        return -bw.sum(wanted * bw.log_softmax(logits)) / 8.0

    def there(x: Any, p: Any) -> Any:
        words = p["table"][x["words"]] + p["places"]
        q, k, v = words @ p["q"], x["memory"] @ p["k"], x["memory"] @ p["v"]
        h = words + torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ v
        logits = (h @ p["table"].T).reshape(8, 7)
        return F.cross_entropy(logits, x["next"].reshape(8), label_smoothing=0.1)

    inputs = {"memory": bench.normal(2, 5, 3), "words": bench.labels(2, 4, classes=7)}
    inputs["next"] = bench.labels(2, 4, classes=7)
    sizes = {"table": bench.normal(7, 4), "places": bench.normal(4, 4), "q": bench.normal(4, 4)}
    bench.compare(inputs, {**sizes, "k": bench.normal(3, 4), "v": bench.normal(3, 4)}, here, there)


def test_rotary_block_with_grouped_queries(bench: "TorchBench") -> None:
    angles = np.outer(np.arange(5), [1.0, 0.1])

    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        def norm(h: bw.Value, gain: bw.Value) -> bw.Value:
            return bw.op("RMSNormalization", h, gain, attributes={"epsilon": 1e-6}, shape=h.shape)[0]

        def turned(h: bw.Value, heads: int) -> bw.Value:
            caches = [bench.constant(np.stack([part(angles)] * 2)) for part in (np.cos, np.sin)]
            return bw.op("RotaryEmbedding", h, *caches, attributes={"num_heads": heads}, shape=h.shape)[0]

        h = norm(x["x"], p["g1"])
        q, k, v = turned(h @ p["q"], 2), turned(h @ p["k"], 1), h @ p["v"]
        heads = {"q_num_heads": 2, "kv_num_heads": 1, "is_causal": 1}
        h = x["x"] + bw.op("Attention", q, k, v, attributes=heads, shape=(2, 5, 8))[0] @ p["o"]
        normed = norm(h, p["g2"])
        (inner,) = bw.op("SwiGLU", normed @ p["gate"], normed @ p["up"], shape=(2, 5, 6))
        return bw.squared_error(h + inner @ p["down"], x["y"])

    def there(x: Any, p: Any) -> Any:
        cosines, sines = (torch.tensor(part(angles)).to(p["q"].dtype) for part in (np.cos, np.sin))

        def turned(h: Any) -> Any:
            a, b = h.chunk(2, -1)
            return torch.cat([a * cosines - b * sines, b * cosines + a * sines], -1)

        def heads(h: Any, count: int) -> Any:
            return h.reshape(2, 5, count, 4).transpose(1, 2)

        h = F.rms_norm(x["x"], (8,), p["g1"], 1e-6)
        q, k, v = turned(heads(h @ p["q"], 2)), turned(heads(h @ p["k"], 1)), heads(h @ p["v"], 1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        h = x["x"] + mixed.transpose(1, 2).reshape(2, 5, 8) @ p["o"]
        normed = F.rms_norm(h, (8,), p["g2"], 1e-6)
        return F.mse_loss(h + (F.silu(normed @ p["gate"]) * (normed @ p["up"])) @ p["down"], x["y"])

    sizes = {"q": bench.normal(8, 8), "k": bench.normal(8, 4), "v": bench.normal(8, 4), "o": bench.normal(8, 8)}
    sizes.update(gate=bench.normal(8, 6), up=bench.normal(8, 6), down=bench.normal(6, 8))
    sizes.update(g1=bench.normal(8), g2=bench.normal(8))
    bench.compare({"x": bench.normal(2, 5, 8), "y": bench.normal(2, 5, 8)}, sizes, here, there)


def test_mixture_of_experts_by_the_top_two(bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], p: dict[str, bw.Value]) -> bw.Value:
        scores = x["x"] @ p["gate"]
        best, chosen = bw.op("TopK", scores, [2], shape=(5, 2), outputs=2)
        zeros = bench.constant(np.zeros((5, 4)))
        scattered = bw.op(
            "ScatterElements", zeros, bw.cast(chosen, "int64"), bw.softmax(best), attributes={"axis": 1}, shape=(5, 4)
        )
        (h,) = bw.op("Einsum", x["x"], p["in"], attributes={"equation": "ni,eih->neh"}, shape=(5, 4, 6))
        (h,) = bw.op("Einsum", bw.gelu(h), p["out"], attributes={"equation": "neh,eho->neo"}, shape=(5, 4, 3))
        y = bw.sum(h * bw.reshape(scattered[0], (5, 4, 1)), axis=1)
        load = bw.mean(bw.softmax(scores), 0)
        return bw.squared_error(y, x["y"]) + 0.1 * bw.sum(load * load)

    def there(x: Any, p: Any) -> Any:
        scores = x["x"] @ p["gate"]
        best, chosen = scores.topk(2)
        gates = torch.zeros_like(scores).scatter(1, chosen, torch.softmax(best, 1))
        h = torch.einsum("neh,eho->neo", F.gelu(torch.einsum("ni,eih->neh", x["x"], p["in"])), p["out"])
        load = torch.softmax(scores, 1).mean(0)
        return F.mse_loss((h * gates[:, :, None]).sum(1), x["y"]) + 0.1 * (load**2).sum()

    sizes = {"gate": bench.normal(3, 4), "in": bench.normal(4, 3, 6), "out": bench.normal(4, 6, 3)}
    bench.compare({"x": bench.normal(5, 3), "y": bench.normal(5, 3)}, sizes, here, there)
