"""The catalog tells of every operator what a graph needs to know."""

from typing import Any, get_args, get_origin

import pytest

from backwire_server.engine.catalog import catalog
from backwire_server.engine.errors import InvalidAttribute
from backwire_server.engine.operators import REQUIRED, Op
from backwire_server.engine.registry import OPS

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


RIGHT = {str: "text", int: 1, float: 1.5, Any: 1}
WRONG = {str: 3, int: 1.5, float: "text"}


def value_of(annotation: Any, values: dict[Any, Any]) -> Any:
    """Returns a value that a kernel with this annotation takes, or one that none does."""
    inner = get_args(annotation)
    if not inner:
        return values[annotation]
    found = value_of(inner[0], values)
    return (found,) if get_origin(annotation) is tuple else found  # or it is a union with None


@pytest.mark.parametrize(
    ("op", "name"),
    [
        pytest.param(op, name, id=f"{op.name}-{name}")
        for op in OPS.values()
        for name in op.attributes
        if op.signature.parameters[name].annotation is not Any
    ],
)
def test_an_attribute_of_another_kind_is_refused_for_every_operator(op: Op, name: str) -> None:
    annotations = {each: op.signature.parameters[each].annotation for each in op.attributes}
    right = {each: value_of(annotation, RIGHT) for each, annotation in annotations.items()}
    assert op.bind(right) == right
    with pytest.raises(InvalidAttribute, match=f"attribute '{name}' is .* but must be of kind"):
        op.bind({**right, name: value_of(annotations[name], WRONG)})
