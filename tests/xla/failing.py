"""A device that fails while it replaces states in a stack: their memory is used up, and nothing comes of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import pytest

from backwire_server.xla import cohort


@contextmanager
def failing_device() -> Iterator[None]:
    """Has every replacement of states in the block fail."""

    def fail(state: Any, *_: Any) -> Any:
        for each in jax.tree.leaves(state):
            each.delete()
        raise RuntimeError("the device failed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "_WRITTEN", fail)
        yield
