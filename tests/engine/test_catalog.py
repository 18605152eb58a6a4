"""The catalog tells of every operator what a graph needs to know."""

from backwire_server.engine.catalog import catalog
from backwire_server.engine.registry import OPS, REQUIRED

ENTRIES = {entry.name: entry for entry in catalog()}


def test_it_holds_all_operators_that_a_graph_can_name_sorted() -> None:
    assert set(ENTRIES) == {op.name for op in OPS.values() if not op.internal} | {"Gradient"}
    assert list(ENTRIES) == sorted(ENTRIES)


def test_an_entry_tells_inputs_and_attributes() -> None:
    gemm = ENTRIES["Gemm"]
    assert list(gemm.inputs.values()) == [False, False, True]
    assert gemm.attributes == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    assert ENTRIES["Cast"].attributes["to"] is REQUIRED
    assert ENTRIES["Concat"].variadic
    assert ENTRIES["Split"].outputs == 0


def test_differentiable_is_what_lets_gradients_through() -> None:
    for name in ("Add", "Gemm", "Conv", "LayerNormalization", "Dropout", "Gradient", "SoftmaxCrossEntropyLoss"):
        assert ENTRIES[name].differentiable, name
    for name in ("ArgMax", "Equal", "Not", "Shape", "HannWindow"):
        assert not ENTRIES[name].differentiable, name
