"""Regularizers: terms of the loss that keep parameters small. They take values, such as those of `parameters_of`."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from backwire._builder import _functions_reduction
from backwire._builder._node import Node
from backwire._builder._value import Value, require_value
from backwire._errors import UnknownNameError
from backwire_api.v1 import graph_pb2


def parameters_of(value: Value, pattern: str = "*") -> dict[str, Value]:
    """Returns the trainable parameters that a value depends on, by name and sorted by it.

    Args:
        value: A value, such as a loss.
        pattern: Which names are wanted; `*` stands for any text, `?` for any letter.

    Raises:
        UnknownNameError: No parameter has such a name.

    Example:
        >>> x = bw.input("x", ("batch", 4))
        >>> y = bw.dense(bw.relu(bw.dense(x, 8, name="hidden")), 2, name="top")
        >>> list(bw.parameters_of(y, "*/weight"))
        ['hidden/weight', 'top/weight']
    """
    found = {name: each for name, each in sorted(_all_parameters(value).items()) if fnmatchcase(name, pattern)}
    if not found:
        raise UnknownNameError(f"{value!r} depends on no trainable parameter {pattern!r}; list all with '*'")
    return found


def l1_penalty(values: Value | Iterable[Value] | Mapping[str, Value]) -> Value:
    """Returns the sum of the magnitudes of all elements, a scalar: sparse parameters cost less (Tibshirani 1996).

    Example:
        >>> x, y = bw.input("x", ("batch", 4)), bw.input("y", ("batch", 1))
        >>> loss = bw.squared_error(bw.dense(x, 1, name="line"), y)
        >>> loss = loss + 1e-3 * bw.l1_penalty(bw.parameters_of(loss, "*/weight"))
    """
    return _total(abs, values)


def l2_penalty(values: Value | Iterable[Value] | Mapping[str, Value]) -> Value:
    """Returns the sum of the squares of all elements, a scalar: small parameters cost less (Hoerl and Kennard 1970).

    Example:
        >>> x, y = bw.input("x", ("batch", 4)), bw.input("y", ("batch", 1))
        >>> loss = bw.squared_error(bw.dense(x, 1, name="line"), y)
        >>> loss = loss + 1e-3 * bw.l2_penalty(bw.parameters_of(loss, "*/weight"))
    """
    return _total(lambda each: each * each, values)


def _total(of: Callable[[Value], Value], values: Value | Iterable[Value] | Mapping[str, Value]) -> Value:
    if isinstance(values, Value):
        return _functions_reduction.sum(of(values))
    items = list(values.values() if isinstance(values, Mapping) else values)
    if not items:
        raise UnknownNameError("there is no value to penalize; give at least one parameter")
    total = _functions_reduction.sum(of(items[0]))
    for each in items[1:]:
        total = total + _functions_reduction.sum(of(each))
    return total


def _all_parameters(value: Value) -> dict[str, Value]:
    require_value("parameters_of", value)
    found: dict[str, Value] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each.source, graph_pb2.Parameter) and not each.source.frozen:
            found[each.name] = each
        elif isinstance(each.source, Node) and id(each.source) not in seen:
            seen.add(id(each.source))
            waiting.extend(each.source.sources)
    return found
