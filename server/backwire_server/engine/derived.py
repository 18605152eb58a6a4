"""What follows from an object, found when it is first asked for."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class derived(Generic[T]):  # noqa: N801 - read as `property` is
    """A property that is found once for each object, which must have a `__dict__`.

    As `functools.cached_property` is from Python 3.12 on; on 3.11 that holds a lock of all objects of a class while it
    finds one, so that a large graph would keep all other sessions waiting.
    """

    def __init__(self, find: Callable[[Any], T]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        found: T = instance.__dict__.setdefault(self._name, self._find(instance))
        return found
