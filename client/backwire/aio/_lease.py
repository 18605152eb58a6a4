"""Lease: the right to be the only writer of a session, given back when it is awaited."""

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

from backwire._errors import BackwireError
from backwire._errors_session import SessionNotFoundError, WriterFencedError
from backwire._lease import LeaseState

if TYPE_CHECKING:
    from backwire.aio._session_base import SessionBase


class Lease(LeaseState):
    """The right to be the only writer of a session, as long as nobody takes it over; see `backwire.Lease`.

    Made by `Session.attach`; an asynchronous context manager, which gives the lease back at its end.
    """

    _session: "SessionBase"

    async def release(self, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Gives the lease back, so that everybody may write; does nothing when it was given back or taken over."""
        with contextlib.suppress(WriterFencedError, SessionNotFoundError):
            await self._session._detach(self, request_id, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.release()
        except BackwireError:
            if error is None:
                raise
