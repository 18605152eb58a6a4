"""Shape rules that many operators share. Each takes `Value`s and attributes and returns a TensorType."""

from collections.abc import Callable, Iterable
from typing import Any

from backwire_server.engine.dims import Dim, broadcast, show
from backwire_server.engine.errors import DtypeMismatch, InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import DType, TensorType
from backwire_server.engine.values import Value


def require(value: Value, kinds: str) -> DType:
    """Returns the dtype if it is of the kinds: f floats, i integers, b bool; raises DtypeMismatch otherwise."""
    kind = value.dtype.kind
    if {"u": "i", "V": "f"}.get(kind, kind) not in kinds:
        names = [{"f": "floating-point", "i": "integer", "b": "bool"}[each] for each in kinds]
        raise DtypeMismatch(f"{value.dtype.name} is not accepted here, only {' or '.join(names)}; use Cast")
    return value.dtype


def common_dtype(values: Iterable[Value], kinds: str = "fib") -> DType:
    """Returns the one dtype of all values; raises DtypeMismatch when they differ: ONNX never converts silently."""
    dtypes = list(dict.fromkeys(require(value, kinds) for value in values))
    if len(dtypes) != 1:
        names = " and ".join(dtype.name for dtype in dtypes)
        raise DtypeMismatch(f"the inputs are {names}, but must be of one type; use Cast")
    return dtypes[0]


def same(kinds: str) -> Callable[..., TensorType]:
    """Returns the rule of an operator whose output is like its first input."""

    def rule(x: Value, *_: Value | None, **__: Any) -> TensorType:
        require(x, kinds)
        return x.type

    return rule


def broadcasting(kinds: str, result: Any = None) -> Callable[..., TensorType]:
    """Returns the rule of an elementwise operator of several inputs; `result` is the output's dtype if another."""

    def rule(*values: Value, **_: Any) -> TensorType:
        dtype = common_dtype(values, kinds)
        return TensorType.of(result or dtype, broadcast(*(value.shape for value in values)))

    return rule


def axis_of(axis: Any, rank: int, *, what: str = "axis") -> int:
    """Returns the axis counted from the front; raises InvalidAttribute when there is no such axis."""
    if not -rank <= axis < max(rank, 1):
        raise InvalidAttribute(f"{what} {axis} is out of range for rank {rank}; use {-rank} to {max(rank - 1, 0)}")
    return int(axis % rank) if rank else 0


def axes_of(axes: Iterable[Any], rank: int) -> tuple[int, ...]:
    """Returns the axes counted from the front and sorted; raises InvalidAttribute for a missing or repeated one."""
    found = sorted(axis_of(axis, rank, what="axes entry") for axis in axes)
    if len(set(found)) != len(found):
        raise InvalidAttribute(f"axes {list(axes)} name an axis twice")
    return tuple(found)


def require_rank(value: Value, least: int, most: int | None = None) -> None:
    """Raises ShapeMismatch unless the rank is within the bounds."""
    most = most if most is not None else 64
    if not least <= value.rank <= most:
        wanted = str(least) if least == most else f"{least} or more" if most == 64 else f"{least} to {most}"
        raise ShapeMismatch(f"shape {show(value.shape)} has rank {value.rank}; the rank must be {wanted}")


def require_equal(a: Dim, b: Dim, what: str) -> None:
    """Raises ShapeMismatch when two dimensions cannot be equal; `what` says which they are."""
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ShapeMismatch(f"{what} are {a} and {b}, but must be equal")
