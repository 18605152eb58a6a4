"""Losses, activations and regularizers: values and gradients are PyTorch's."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
F: Any = torch.nn.functional

Pair = tuple[Callable[..., bw.Value], Callable[..., Any]]

NUMBERS: dict[str, Pair] = {
    "squared error": (bw.squared_error, F.mse_loss),
    "absolute error": (bw.absolute_error, F.l1_loss),
    "huber": (
        lambda a, b, **k: bw.huber_loss(a, b, delta=0.4, **k),
        lambda a, b, **k: F.huber_loss(a, b, delta=0.4, **k),
    ),
    "smooth l1": (
        lambda a, b, **k: bw.smooth_l1_loss(a, b, beta=0.4, **k),
        lambda a, b, **k: F.smooth_l1_loss(a, b, beta=0.4, **k),
    ),
    "poisson of log rates": (bw.poisson_loss, F.poisson_nll_loss),
    "poisson of rates": (
        lambda a, b, **k: bw.poisson_loss(a**2 + 0.1, b, log_rate=False, **k),
        lambda a, b, **k: F.poisson_nll_loss(a**2 + 0.1, b, log_input=False, **k),
    ),
    "gaussian": (
        lambda a, b, **k: bw.gaussian_loss(a, b, bw.exp(a * 3), **k),
        lambda a, b, **k: F.gaussian_nll_loss(a, b, (a * 3).exp(), **k),
    ),
    "hinge": (
        lambda a, b, **k: bw.hinge_loss(a, bw.sign(b), margin=0.3, **k),
        lambda a, b, reduction: _reduced((0.3 - a * b.sign()).clamp(min=0), reduction),
    ),
    "sigmoid cross-entropy": (
        lambda a, b, **k: bw.sigmoid_cross_entropy(a * 9, bw.sigmoid(b), **k),
        lambda a, b, **k: F.binary_cross_entropy_with_logits(a * 9, torch.sigmoid(b), **k),
    ),
    "weighted sigmoid cross-entropy": (
        lambda a, b, **k: bw.sigmoid_cross_entropy(a, bw.sigmoid(b), positive_weight=[1, 2, 0.5, 4], **k),
        lambda a, b, **k: F.binary_cross_entropy_with_logits(
            a, torch.sigmoid(b), pos_weight=torch.tensor([1, 2, 0.5, 4], dtype=a.dtype), **k
        ),
    ),
    "cosine": (
        lambda a, b, **k: bw.cosine_loss(a, b, bw.sign(b[:, 0]), margin=-0.6, **k),
        lambda a, b, reduction: _cosine(a, b, b[:, 0] > 0, reduction),
    ),
    "triplet": (
        lambda a, b, **k: bw.triplet_loss(a, b, b[::-1], margin=0.3, **k),
        lambda a, b, **k: F.triplet_margin_loss(a, b, b.flip(0), margin=0.3, **k),
    ),
    "divergence": (
        lambda a, b, **k: bw.kl_divergence(bw.log_softmax(a), bw.softmax(b), **k),
        lambda a, b, reduction: _divergence(F.log_softmax(a, -1), F.softmax(b, -1), False, reduction),
    ),
    "divergence of logarithms": (
        lambda a, b, **k: bw.kl_divergence(bw.log_softmax(a), bw.log_softmax(b), log_target=True, **k),
        lambda a, b, reduction: _divergence(F.log_softmax(a, -1), F.log_softmax(b, -1), True, reduction),
    ),
    "smoothed and weighted cross-entropy of probabilities": (
        lambda a, b, **k: bw.softmax_cross_entropy(
            a, bw.softmax(b), class_weights=[1, 2, 0.5, 4], label_smoothing=0.2, **k
        ),
        lambda a, b, **k: F.cross_entropy(
            a, F.softmax(b, -1), torch.tensor([1, 2, 0.5, 4], dtype=a.dtype), label_smoothing=0.2, **k
        ),
    ),
}


def _reduced(each: Any, reduction: str) -> Any:
    return each if reduction == "none" else getattr(each, reduction)()


def _cosine(a: Any, b: Any, alike: Any, reduction: str) -> Any:
    """PyTorch's cosine_embedding_loss without the 1e-12 that it adds to squared norms."""
    cosine = F.cosine_similarity(a, b, dim=-1)
    return _reduced(torch.where(alike, 1 - cosine, (cosine + 0.6).clamp(min=0)), reduction)


def _divergence(q: Any, p: Any, log_target: bool, reduction: str) -> Any:
    return _reduced(F.kl_div(q, p, log_target=log_target, reduction="none").sum(-1), reduction)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", NUMBERS)
def test_loss_of_numbers(name: str, reduction: str, bench: "TorchBench") -> None:
    here, there = NUMBERS[name]
    bench.compare(
        {"a": bench.normal(5, 4), "b": bench.normal(5, 4)},
        {},
        lambda x, _: bw.mean(here(x["a"], x["b"], reduction=reduction) ** 2),
        lambda x, _: (there(x["a"], x["b"], reduction=reduction) ** 2).mean(),
    )


WEIGHTS = [1.0, 2.0, 0.5, 4.0]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [None, 2, -1])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
def test_softmax_cross_entropy_of_class_numbers(
    weights: list[float] | None, smoothing: float, ignored: int | None, reduction: Any, bench: "TorchBench"
) -> None:
    labels = bench.labels(3, 5, classes=4)
    labels[:, 0] = ignored if ignored is not None else 1

    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        options: dict[str, Any] = {"label_smoothing": smoothing, "ignore_index": ignored, "reduction": reduction}
        return bw.sum(bw.softmax_cross_entropy(x["scores"], x["labels"], class_weights=weights, **options) ** 2)

    def there(x: Any, _: Any) -> Any:
        given = None if weights is None else torch.tensor(weights, dtype=x["scores"].dtype)
        options = {"label_smoothing": smoothing, "reduction": reduction}
        ignore = {} if ignored is None else {"ignore_index": ignored}
        return (F.cross_entropy(x["scores"], x["labels"], given, **options, **ignore) ** 2).sum()

    bench.compare({"scores": bench.normal(3, 4, 5), "labels": labels}, {}, here, there)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_multiclass_hinge_loss(reduction: Any, bench: "TorchBench") -> None:
    bench.compare(
        {"scores": bench.normal(5, 4), "labels": bench.labels(5, classes=4)},
        {},
        lambda x, _: bw.sum(bw.multiclass_hinge_loss(x["scores"], x["labels"], margin=0.4, reduction=reduction) ** 2),
        lambda x, _: (F.multi_margin_loss(x["scores"], x["labels"], margin=0.4, reduction=reduction) ** 2).sum(),
    )


@pytest.mark.parametrize("label", [-1, 4])
def test_multiclass_hinge_loss_refuses_a_label_that_is_no_class(label: int, client: bw.Client) -> None:
    scores, labels = bw.input("scores", ("batch", 4)), bw.input("labels", ("batch",), "uint8" if label > 0 else "int64")
    session = client.create_session(bw.multiclass_hinge_loss(scores, labels))
    with pytest.raises(bw.TensorError, match=f"label {label} is no class of 0 to 3"):
        session.forward({"scores": np.zeros((2, 4)), "labels": [0, label]})


def test_divergence_counts_nothing_where_the_target_has_no_probability(bench: "TorchBench") -> None:
    target = np.asarray([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    bench.compare(
        {"a": bench.normal(2, 3)},
        {},
        lambda x, _: bw.kl_divergence(bw.log_softmax(x["a"]), bench.constant(target)),
        lambda x, _: F.kl_div(F.log_softmax(x["a"], -1), torch.tensor(target).to(x["a"].dtype), reduction="batchmean"),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("padded", [False, True])
def test_ctc_loss(padded: bool, reduction: Any, bench: "TorchBench") -> None:
    inputs = {
        "scores": bench.normal(4, 9, 5, scale=2.0),
        "labels": np.asarray([[1, 1, 2], [3, 4, 3], [2, 2, 2], [1, 2, 4]]),
    }
    lengths, label_lengths = (np.asarray([9, 6, 7, 2]), np.asarray([3, 2, 1, 0])) if padded else ([9] * 4, [3] * 4)

    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        ends = {"lengths": bw.constant(lengths), "label_lengths": bw.constant(label_lengths)} if padded else {}
        options: dict[str, Any] = {"blank": 0, "reduction": reduction, **ends}
        return bw.sum(bw.ctc_loss(bw.log_softmax(x["scores"]), x["labels"], **options) ** 2)

    def there(x: Any, _: Any) -> Any:
        said = F.log_softmax(x["scores"], -1).transpose(0, 1)
        ends = torch.tensor(lengths), torch.tensor(label_lengths)
        return (F.ctc_loss(said, x["labels"], *ends, blank=0, reduction=reduction) ** 2).sum()

    bench.compare(inputs, {}, here, there)


def test_ctc_loss_is_infinite_where_the_steps_are_too_few(bench: "TorchBench") -> None:
    x = bw.input("x", (2, 3, 4), dtype=bench.dtype)
    labels = bw.constant([[1, 1], [1, 2]])  # the first needs a blank between its labels, and has two steps
    each = bw.ctc_loss(bw.log_softmax(x), labels, lengths=bw.constant([2, 2]), reduction="none")
    with bench.client.create_session(bw.graph(outputs={"each": each})) as session:
        forward = session.forward({"x": bench.normal(2, 3, 4)})
        found = forward.outputs["each"]
        slope = forward.backward({"each": np.ones(2, bench.dtype)}, wrt=["x"])["x"]
    assert np.isposinf(found[0])
    assert np.isfinite(found[1])
    assert np.all(slope[0] == 0)
    assert np.any(slope[1] != 0)


ACTIVATIONS: dict[str, Pair] = {
    "silu": (bw.silu, F.silu),
    "mish": (bw.mish, F.mish),
    "selu": (bw.selu, F.selu),
    "celu": (lambda x: bw.celu(x, 0.5), lambda x: F.celu(x, 0.5)),
    "softsign": (bw.softsign, F.softsign),
    "hard sigmoid": (lambda x: bw.hard_sigmoid(x * 9), lambda x: F.relu6(x * 9 + 3) / 6),
    "hard swish": (lambda x: bw.hard_swish(x * 9), lambda x: F.hardswish(x * 9)),
    "gated linear unit": (bw.glu, F.glu),
    "gated along axis 0": (lambda x: bw.glu(x, 0), lambda x: F.glu(x, 0)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str, bench: "TorchBench") -> None:
    here, there = ACTIVATIONS[name]
    bench.compare(
        {"x": bench.normal(6, 4)},
        {},
        lambda x, _: bw.mean(here(x["x"]) ** 2),
        lambda x, _: (there(x["x"]) ** 2).mean(),
    )


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4), (2, 3, 4, 2)])
def test_learned_slopes(shape: tuple[int, ...], bench: "TorchBench") -> None:
    bench.compare(
        {"x": bench.normal(*shape)},
        {},
        lambda x, _: bw.mean(bw.prelu(x["x"], name="p") ** 2),
        lambda x, p: (F.prelu(x["x"], p["p/slope"]) ** 2).mean(),
        {"p/slope": bench.normal(3)},
    )


def test_penalties_of_chosen_parameters(bench: "TorchBench") -> None:
    layers = {"a/weight": bench.normal(3, 4), "a/bias": bench.normal(4), "b/weight": bench.normal(4, 2)}

    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        y = bw.dense(bw.tanh(bw.dense(x["x"], 4, name="a")), 2, name="b", use_bias=False)
        penalties = 0.1 * bw.l1_penalty(bw.parameters_of(y, "b/*")) + bw.l2_penalty(bw.parameters_of(y, "*/weight"))
        return bw.mean(y) + penalties

    def there(x: Any, p: Any) -> Any:
        y = torch.tanh(x["x"] @ p["a/weight"] + p["a/bias"]) @ p["b/weight"]
        squares = (p["a/weight"] ** 2).sum() + (p["b/weight"] ** 2).sum()
        return y.mean() + 0.1 * p["b/weight"].abs().sum() + squares

    bench.compare({"x": bench.normal(5, 3)}, {}, here, there, layers)
