"""Course: a loop without any I/O, which yields the calls that it wants made and is sent what they return.

What makes the calls decides whether they are awaited, so that sessions of both kinds share the loops.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Any, TypeVar

from backwire._errors import BackwireError
from backwire._training._data import Batch, Batches

T = TypeVar("T")
Operation = Callable[[], Any]
Course = Generator[Operation, Any, T]
"""A loop that yields calls and returns its outcome."""


def drive(course: Course[T]) -> T:
    """Makes the calls of a course and returns its outcome; an error of a call is raised where the course waits."""
    try:
        operation = next(course)
        while True:
            try:
                value = operation()
            except BaseException as error:
                operation = course.throw(error)
            else:
                operation = course.send(value)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def closed(pipe: Any) -> Course[None]:
    """Closes a pipeline, whose results have all been asked for, so that a failure of this means nothing."""
    with contextlib.suppress(BackwireError):
        yield pipe.close


def next_batch(batches: Batches) -> Course[Batch | None]:
    """Returns the next batch, also of those that arrive; None for no more."""
    if isinstance(batches, AsyncIterator):
        arrived: Batch | None = yield partial(anext, batches, None)
        return arrived
    return next(batches, None)
