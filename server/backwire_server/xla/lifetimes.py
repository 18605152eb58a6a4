"""Lets go of what was compiled as soon as its plan goes: the machine code of one shape takes megabytes.

What is kept with a program must not refer to it, but to one that is `apart`, nor to itself. Else only the collector
would free it, which comes the more seldom the more objects there are, and knows nothing of the memory of XLA.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod


def unbound(method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method as a function that does not keep its object, which must be there when it is called."""
    weak = WeakMethod(method)

    def call(*given: Any) -> Any:
        found = weak()
        assert found is not None
        return found(*given)

    call.__name__ = method.__name__  # by which JAX knows again what it keeps on disk
    return call
