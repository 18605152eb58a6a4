"""Lease: the right to be the only writer of a session."""

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

from backwire._errors import BackwireError
from backwire._errors_session import SessionNotFoundError, WriterFencedError
from backwire._session_state import SessionState
from backwire_api.v1 import gradient_service_pb2 as service_pb2

if TYPE_CHECKING:
    from backwire._session_base import SessionBase


class LeaseState:
    """A lease as the server gave it.

    Attributes:
        number: The number that mutations carry; larger than that of any lease before.
        holder: Who holds it, as others see it.
        timeout: How many seconds the holder may be silent before another may have the lease.
    """

    def __init__(self, session: SessionState, given: service_pb2.Lease) -> None:
        """Speaks for a lease that the server has given to `session`."""
        self.number = given.number
        self.holder = given.holder
        self.timeout = given.timeout.ToNanoseconds() / 1e9
        self._session = session

    def __repr__(self) -> str:
        return f"<Lease {self.number} of session {self._session.id}, held by {self.holder!r}>"


class Lease(LeaseState):
    """The right to be the only writer of a session, as long as nobody takes it over.

    Made by `Session.attach`; a context manager, which gives the lease back at its end. Until then all mutations of that
    Session object carry its number, those of its pipelines too; any other is refused with WriterFencedError.

    Attributes:
        number: The number that mutations carry; larger than that of any lease before.
        holder: Who holds it, as others see it.
        timeout: How many seconds the holder may be silent before another may have the lease.
    """

    _session: "SessionBase"

    def release(self, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Gives the lease back, so that everybody may write; does nothing when it was given back or taken over."""
        with contextlib.suppress(WriterFencedError, SessionNotFoundError):
            self._session._detach(self, request_id, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.release()
        except BackwireError:
            if error is None:
                raise
