"""Attention, blocks of transformers and positions: losses and gradients are PyTorch's."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
F: Any = torch.nn.functional

BATCH, STEPS, FEATURES, HEADS, HIDDEN = 2, 5, 8, 2, 6
KEPT = np.asarray([[True] * 5, [True, True, True, False, False]], np.bool_)

Arrays = dict[str, "NDArray[Any]"]


def attention_parameters(bench: "TorchBench", name: str, key_features: int = FEATURES, heads: int = HEADS) -> Arrays:
    sizes = {"query": (FEATURES, 8), "key": (key_features, 4 * heads), "value": (key_features, 4 * heads)}
    found = {}
    for part, size in {**sizes, "output": (8, FEATURES)}.items():
        found[f"{name}/{part}/weight"], found[f"{name}/{part}/bias"] = bench.normal(*size), bench.normal(size[1])
    return found


def block_parameters(bench: "TorchBench", *attentions: str) -> Arrays:
    found: Arrays = {}
    for part in attentions:
        found.update(attention_parameters(bench, f"b/{part}"))
    for norm in (*attentions, "mlp"):
        found[f"b/{norm}_norm/scale"], found[f"b/{norm}_norm/bias"] = bench.normal(FEATURES), bench.normal(FEATURES)
    for part, size in {"up": (FEATURES, HIDDEN), "down": (HIDDEN, FEATURES)}.items():
        found[f"b/mlp/{part}/weight"], found[f"b/mlp/{part}/bias"] = bench.normal(*size), bench.normal(size[1])
    return found


def attended(p: Any, name: str, query: Any, key: Any, **options: Any) -> Any:
    """Multi-head attention by PyTorch's attention of heads and linear layers of our parameters."""

    def heads(part: str, x: Any) -> Any:
        y = x @ p[f"{name}/{part}/weight"] + p[f"{name}/{part}/bias"]
        return y.unflatten(-1, (-1, 4)).transpose(1, 2)

    q, k, v = heads("query", query), heads("key", key), heads("value", key)
    k, v = (each.repeat_interleave(q.shape[1] // k.shape[1], 1) for each in (k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2)
    return mixed @ p[f"{name}/output/weight"] + p[f"{name}/output/bias"]


def weights_of(p: Any, name: str, theirs: str) -> dict[str, Any]:
    """Returns our parameters of an attention as torch.nn.MultiheadAttention has them."""
    parts = [p[f"{name}/{part}/weight"].T for part in ("query", "key", "value")]
    return {
        f"{theirs}.in_proj_weight": torch.cat(parts),
        f"{theirs}.in_proj_bias": torch.cat([p[f"{name}/{part}/bias"] for part in ("query", "key", "value")]),
        f"{theirs}.out_proj.weight": p[f"{name}/output/weight"].T,
        f"{theirs}.out_proj.bias": p[f"{name}/output/bias"],
    }


def block_weights(p: Any, *attentions: tuple[str, str]) -> dict[str, Any]:
    """Returns our parameters of a block as PyTorch's layer has them."""
    found = {}
    for ours, theirs in (("up", "linear1"), ("down", "linear2")):
        found[f"{theirs}.weight"], found[f"{theirs}.bias"] = p[f"b/mlp/{ours}/weight"].T, p[f"b/mlp/{ours}/bias"]
    for ours, theirs in attentions:
        found.update(weights_of(p, f"b/{ours}", theirs))
    for place, norm in enumerate([*(ours for ours, _ in attentions), "mlp"], start=1):
        found[f"norm{place}.weight"], found[f"norm{place}.bias"] = p[f"b/{norm}_norm/scale"], p[f"b/{norm}_norm/bias"]
    return found


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention(causal: bool, bench: "TorchBench") -> None:
    bench.compare(
        {"x": bench.normal(BATCH, STEPS, FEATURES)},
        {},
        lambda x, _: bw.mean(bw.multi_head_attention(x["x"], heads=HEADS, name="a", causal=causal) ** 2),
        lambda x, p: (attended(p, "a", x["x"], x["x"], is_causal=causal) ** 2).mean(),
        attention_parameters(bench, "a"),
    )


def test_cross_attention_of_shared_keys(bench: "TorchBench") -> None:
    bench.compare(
        {"x": bench.normal(BATCH, STEPS, FEATURES), "memory": bench.normal(BATCH, 3, 5)},
        {},
        lambda x, _: bw.mean(bw.multi_head_attention(x["x"], x["memory"], heads=2, key_heads=1, name="a") ** 2),
        lambda x, p: (attended(p, "a", x["x"], x["memory"]) ** 2).mean(),
        attention_parameters(bench, "a", 5, heads=1),
    )


@pytest.mark.parametrize("kind", ["bools", "numbers", "numbers alone"])
def test_masks_and_padding_hide_keys(kind: str, bench: "TorchBench") -> None:
    seen = np.tri(STEPS, dtype=bool) | np.eye(STEPS, k=1, dtype=bool)
    added = bench.normal(HEADS, STEPS, STEPS)
    mask = seen if kind == "bools" else added
    key_mask = None if kind == "numbers alone" else bw.constant(KEPT)

    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        return bw.mean(bw.multi_head_attention(x["x"], heads=HEADS, name="a", mask=mask, key_mask=key_mask) ** 2)

    def there(x: Any, p: Any) -> Any:
        kept = torch.tensor(KEPT)[:, None, None, :] | (kind == "numbers alone")
        given = torch.tensor(seen) & kept if kind == "bools" else torch.tensor(added).where(kept, -math.inf)
        return (attended(p, "a", x["x"], x["x"], attn_mask=given) ** 2).mean()

    bench.compare({"x": bench.normal(BATCH, STEPS, FEATURES)}, {}, here, there, attention_parameters(bench, "a"))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_block(norm_first: bool, causal: bool, bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        options: dict[str, Any] = {"heads": HEADS, "hidden": HIDDEN, "name": "b", "norm_first": norm_first}
        return bw.mean(bw.transformer_encoder_block(x["x"], key_mask=bw.constant(KEPT), causal=causal, **options) ** 2)

    def there(x: Any, p: Any) -> Any:
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": norm_first}
        layer = torch.nn.TransformerEncoderLayer(FEATURES, HEADS, HIDDEN, dtype=x["x"].dtype, **options)
        weights = block_weights(p, ("attention", "self_attn"))
        masks = {"src_key_padding_mask": torch.tensor(~KEPT)}
        if causal:
            masks["src_mask"] = torch.ones(STEPS, STEPS, dtype=torch.bool).triu(1)
        return (torch.func.functional_call(layer, weights, (x["x"],), masks) ** 2).mean()

    parameters = block_parameters(bench, "attention")
    bench.compare({"x": bench.normal(BATCH, STEPS, FEATURES)}, {}, here, there, parameters)


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_block(norm_first: bool, bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        options: dict[str, Any] = {"heads": HEADS, "hidden": HIDDEN, "name": "b", "norm_first": norm_first}
        options["activation"] = bw.relu
        y = bw.transformer_decoder_block(x["x"], x["memory"], memory_mask=bw.constant(KEPT[:, 1:]), **options)
        return bw.mean(y**2)

    def there(x: Any, p: Any) -> Any:
        options = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first}
        layer = torch.nn.TransformerDecoderLayer(FEATURES, HEADS, HIDDEN, dtype=x["x"].dtype, **options)
        weights = block_weights(p, ("attention", "self_attn"), ("cross", "multihead_attn"))
        masks = {
            "tgt_mask": torch.ones(STEPS, STEPS, dtype=torch.bool).triu(1),
            "memory_key_padding_mask": torch.tensor(~KEPT[:, 1:]),
        }
        return (torch.func.functional_call(layer, weights, (x["x"], x["memory"]), masks) ** 2).mean()

    inputs = {"x": bench.normal(BATCH, STEPS, FEATURES), "memory": bench.normal(BATCH, 4, FEATURES)}
    bench.compare(inputs, {}, here, there, block_parameters(bench, "attention", "cross"))


def test_gated_feed_forward_layer(bench: "TorchBench") -> None:
    def there(x: Any, p: Any) -> Any:
        gate, up = (x["x"] @ p[f"f/{part}/weight"] for part in ("gate", "up"))
        return ((F.silu(gate) * up @ p["f/down/weight"]) ** 2).mean()

    options: dict[str, Any] = {"activation": bw.silu, "gated": True, "use_bias": False}
    sizes = {"f/up/weight": (FEATURES, 6), "f/gate/weight": (FEATURES, 6), "f/down/weight": (6, FEATURES)}
    bench.compare(
        {"x": bench.normal(BATCH, STEPS, FEATURES)},
        {},
        lambda x, _: bw.mean(bw.feed_forward(x["x"], 6, name="f", **options) ** 2),
        there,
        {name: bench.normal(*size) for name, size in sizes.items()},
    )


def test_rotation_of_queries_and_keys(bench: "TorchBench") -> None:
    def turned(x: Any) -> Any:
        numbers = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1))
        angles = torch.outer(torch.arange(STEPS, dtype=x.dtype), 100.0 ** -torch.arange(0, 1, 0.5, dtype=x.dtype))
        found = torch.view_as_real(numbers * torch.polar(torch.ones_like(angles), angles))
        return torch.cat([found[..., 0], found[..., 1]], -1)

    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        return bw.mean(bw.attention(bw.rotary(x["q"], base=100), bw.rotary(x["k"], base=100), x["v"], scale=0.7) ** 2)

    def there(x: Any, _: Any) -> Any:
        return (F.scaled_dot_product_attention(turned(x["q"]), turned(x["k"]), x["v"], scale=0.7) ** 2).mean()

    bench.compare({name: bench.normal(BATCH, 3, STEPS, 4) for name in "qkv"}, {}, here, there)


@pytest.mark.parametrize("features", [4, 5])
def test_sines_and_cosines_of_positions(features: int, bench: "TorchBench") -> None:
    def there(x: Any, _: Any) -> Any:
        table = torch.zeros(STEPS, features, dtype=torch.float64)
        for step in range(STEPS):
            for feature in range(features):
                angle = step / 10_000 ** (feature // 2 * 2 / features)
                table[step, feature] = math.cos(angle) if feature % 2 else math.sin(angle)
        return ((x["x"] + table.to(x["x"].dtype)) ** 2).mean()

    inputs = {"x": bench.normal(BATCH, STEPS, features)}
    bench.compare(inputs, {}, lambda x, _: bw.mean(bw.sinusoidal_positions(x["x"]) ** 2), there)


def test_learned_positions_of_sequences_that_may_be_longer(bench: "TorchBench") -> None:
    bench.compare(
        {"x": bench.normal(BATCH, STEPS, 3)},
        {},
        lambda x, _: bw.mean(bw.learned_positions(x["x"], name="places", steps=7) ** 2),
        lambda x, p: ((x["x"] + p["places/weight"][:STEPS]) ** 2).mean(),
        {"places/weight": bench.normal(7, 3)},
    )
