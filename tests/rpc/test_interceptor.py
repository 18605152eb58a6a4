"""A stream that broke off is told from one that ended."""

from typing import Any

import pytest

from backwire_server.rpc import interceptor
from backwire_server.sessions.errors import Cancelled


class Context:
    """A call whose end becomes known only when it is asked for the n-th time."""

    def __init__(self, asked: int) -> None:
        self._asked = asked

    def is_active(self) -> bool:
        self._asked -= 1
        return self._asked >= 0


def test_an_end_that_turns_out_to_be_a_break_is_refused() -> None:
    gone: Any = Context(asked=2)
    with pytest.raises(Cancelled):
        interceptor._confirm_end(gone)


def test_an_orderly_end_is_confirmed() -> None:
    there: Any = Context(asked=1_000_000)
    interceptor._confirm_end(there)
