"""Checks the inputs of a forward pass against what the graph declares."""

from collections.abc import Mapping
from typing import TypeVar

from backwire_server.engine.dims import Dim, Symbolic, show
from backwire_server.engine.errors import DtypeMismatch, ShapeMismatch, UnknownInput
from backwire_server.engine.graph import Array, Input, TensorType

Typed = TypeVar("Typed", Array, TensorType)


def bind_inputs(declared: Mapping[str, Input], given: Mapping[str, Typed]) -> dict[str, Typed]:
    """Returns the inputs, or what stands for them, as a new dict.

    Raises UnknownInput for a name that is not declared, DtypeMismatch and ShapeMismatch where the array is not what
    was declared or one symbolic dimension would have two sizes. The `field` of the error is `inputs[name]`.
    """
    sizes: dict[Symbolic, tuple[Dim, str]] = {}
    for name, array in given.items():
        path = f"inputs[{name}]"
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise UnknownInput(f"the graph has no input {name!r}; its inputs are: {known}", field=path)
        type_ = declared[name].type
        if array.dtype != type_.dtype:
            raise DtypeMismatch(f"input {name!r} is {type_}, but was given {array.dtype.name}; convert it", field=path)
        if len(array.shape) != len(type_.shape):
            raise ShapeMismatch(
                f"input {name!r} is {type_} of rank {len(type_.shape)}, but was given shape {show(array.shape)}; "
                "reshape it",
                field=path,
            )
        for dim, size in zip(type_.shape, array.shape, strict=True):
            if isinstance(dim, Symbolic):
                first, where = sizes.setdefault(dim, (size, name))
                if first != size:
                    raise ShapeMismatch(
                        f"dimension {dim} is {first} in input {where!r} and {size} in input {name!r}; "
                        "give both the same size",
                        field=path,
                    )
            elif dim != size:
                raise ShapeMismatch(
                    f"input {name!r} is {type_}, but was given shape {show(array.shape)}; give it {show(type_.shape)}",
                    field=path,
                )
    return dict(given)
