"""Recurrent layers: losses and gradients of all parameters and inputs are those of PyTorch's modules."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import backwire as bw

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tests.e2e.conftest import TorchBench

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")

UNITS, FEATURES, STEPS, BATCH = 3, 2, 5, 4
ORDERS = {"rnn": "0", "gru": "102", "lstm": "0312"}  # where PyTorch has the gates that ONNX has in this order


def drawn(bench: "TorchBench", kind: str, layers: int, both: bool) -> dict[str, "NDArray[Any]"]:
    """Returns values for the parameters of a layer called `r`."""
    rows, ways = len(ORDERS[kind]) * UNITS, 2 if both else 1
    found = {}
    for layer in range(layers):
        for end in ("", "/reversed")[:ways]:
            name = f"r/{layer}{end}"
            found[f"{name}/weight"] = bench.normal(rows, FEATURES if layer == 0 else ways * UNITS)
            found[f"{name}/recurrent"] = bench.normal(rows, UNITS)
            found[f"{name}/bias"] = bench.normal(rows)
            if kind == "gru":
                found[f"{name}/recurrent_bias"] = bench.normal(rows)
    return found


def module(kind: str, layers: int, both: bool, p: Any, **options: Any) -> Callable[..., Any]:
    """Returns PyTorch's module as a function that computes with our parameters."""
    made = getattr(torch.nn, kind.upper())(
        FEATURES, UNITS, layers, batch_first=True, bidirectional=both, dtype=p["r/0/weight"].dtype, **options
    )

    def gates(name: str) -> Any:
        parts = p[name].chunk(len(ORDERS[kind]))
        return torch.cat([parts[ORDERS[kind].index(str(place))] for place in range(len(parts))])

    weights = {}
    for layer in range(layers):
        for end, theirs in (("", ""), ("/reversed", "_reverse"))[: 2 if both else 1]:
            name = f"r/{layer}{end}"
            bias = gates(f"{name}/bias")
            weights[f"weight_ih_l{layer}{theirs}"] = gates(f"{name}/weight")
            weights[f"weight_hh_l{layer}{theirs}"] = gates(f"{name}/recurrent")
            weights[f"bias_ih_l{layer}{theirs}"] = bias
            second = gates(f"{name}/recurrent_bias") if kind == "gru" else torch.zeros_like(bias)
            weights[f"bias_hh_l{layer}{theirs}"] = second
    return lambda *given: torch.func.functional_call(made, weights, given)


def flat(states: Any) -> tuple[Any, ...]:
    return states if isinstance(states, tuple) else (states,)


@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (2, False), (2, True)])
@pytest.mark.parametrize("kind", ORDERS)
def test_recurrent_layer(kind: str, layers: int, both: bool, bench: "TorchBench") -> None:
    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        outputs, *states = getattr(bw, kind)(x["x"], UNITS, name="r", layers=layers, bidirectional=both)
        assert outputs.shape == x["y"].shape
        return bw.squared_error(outputs, x["y"]) + sum(bw.mean(state**3) for state in states)

    def there(x: Any, p: Any) -> Any:
        outputs, states = module(kind, layers, both, p)(x["x"])
        return ((outputs - x["y"]) ** 2).mean() + sum((state**3).mean() for state in flat(states))

    inputs = {"x": bench.normal(BATCH, STEPS, FEATURES), "y": bench.normal(BATCH, STEPS, UNITS * (2 if both else 1))}
    bench.compare(inputs, {}, here, there, drawn(bench, kind, layers, both))


@pytest.mark.parametrize("kind", ORDERS)
def test_sequences_end_at_their_lengths(kind: str, bench: "TorchBench") -> None:
    lengths = np.asarray([5, 1, 3, 4])

    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        given = {"lengths": bw.constant(lengths), "bidirectional": True}
        outputs, *states = getattr(bw, kind)(x["x"], UNITS, name="r", **given)
        return bw.mean(outputs**2) + sum(bw.mean(state**3) for state in states)

    def there(x: Any, p: Any) -> Any:
        utilities = torch.nn.utils.rnn
        packed = utilities.pack_padded_sequence(x["x"], lengths, batch_first=True, enforce_sorted=False)
        outputs, states = module(kind, 1, True, p)(packed)
        padded, _ = utilities.pad_packed_sequence(outputs, batch_first=True)
        return (padded**2).mean() + sum((state**3).mean() for state in flat(states))

    bench.compare({"x": bench.normal(BATCH, STEPS, FEATURES)}, {}, here, there, drawn(bench, kind, 1, True))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ORDERS)
def test_states_are_taken_on(kind: str, layers: int, bench: "TorchBench") -> None:
    names = ("h", "c") if kind == "lstm" else ("h",)

    def here(x: dict[str, bw.Value], _: Any) -> bw.Value:
        start: Any = (x["h"], x["c"]) if kind == "lstm" else x["h"]
        outputs, *_ = getattr(bw, kind)(x["x"], UNITS, name="r", layers=layers, state=start)
        return bw.mean(outputs**2)

    def there(x: Any, p: Any) -> Any:
        start = tuple(x[name] for name in names) if kind == "lstm" else x["h"]
        return (module(kind, layers, False, p)(x["x"], start)[0] ** 2).mean()

    inputs = {name: bench.normal(layers, BATCH, UNITS) for name in names}
    inputs["x"] = bench.normal(BATCH, STEPS, FEATURES)
    bench.compare(inputs, {}, here, there, drawn(bench, kind, layers, False))


def test_rnn_of_relus(bench: "TorchBench") -> None:
    bench.compare(
        {"x": bench.normal(BATCH, STEPS, FEATURES)},
        {},
        lambda x, _: bw.mean(bw.rnn(x["x"], UNITS, name="r", activation="relu")[0] ** 2),
        lambda x, p: (module("rnn", 1, False, p, nonlinearity="relu")(x["x"])[0] ** 2).mean(),
        drawn(bench, "rnn", 1, False),
    )
