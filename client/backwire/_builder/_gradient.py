"""Gradients as values of a graph, to build on: gradient penalties, Hessian-vector products, physics-informed losses."""

from collections.abc import Sequence

from backwire import _arrays
from backwire._builder._node import Constant, Node
from backwire._builder._value import Value, require_value
from backwire._errors import DTypeError, GraphError


def gradient(y: Value, xs: Sequence[Value]) -> tuple[Value, ...]:
    """Returns the gradient of y with respect to each of xs, as values of the same graph.

    A y of several elements is differentiated as its sum. An x that y does not depend on has a gradient of zeros. The
    gradients can be differentiated again, by `Backward` and by `gradient`.

    Args:
        y: A floating-point value.
        xs: Floating-point inputs, parameters or values on the way to y, at least one.

    Raises:
        DTypeError: y or one of xs is not floating-point.
        GraphError: There is no x, or one is a constant.

    Example:
        >>> x, v = bw.input("x", (3,)), bw.input("v", (3,))
        >>> (slope,) = bw.gradient(bw.sum(x**4), [x])
        >>> (product,) = bw.gradient(bw.sum(slope * v), [x])  # the Hessian times v
        >>> product.shape
        (3,)
    """
    if isinstance(xs, Value):
        raise GraphError(f"gradient: xs is {xs!r} alone; put it into a list")
    values = tuple(xs)
    if not values:
        raise GraphError("gradient: xs is empty; name at least one value to differentiate by")
    for value in (y, *values):
        require_value("gradient", value)
        if not _arrays.is_float(value.dtype):
            raise DTypeError(f"gradient: {value!r} is not floating-point, so it has no gradient; use bw.cast before")
    for value in values:
        if isinstance(value.source, Constant):
            raise GraphError(f"gradient: {value!r} cannot be differentiated by; make it an input or a parameter")
    node = Node("Gradient", values, outputs=len(values), names={"xs": values, "y": y})
    return tuple(Value(node, value.dtype, value.shape, index=index) for index, value in enumerate(values))
