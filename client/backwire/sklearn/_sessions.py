"""The sessions behind estimators: made on shared connections, pickled as their states, deleted when no one has them."""

import contextlib
import io
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backwire._client import Client
from backwire._connect import connect
from backwire._errors import BackwireError
from backwire._session import Session

_clients: dict[tuple[int, "Place"], Client] = {}
_lock = threading.Lock()
_abandoned: deque[tuple[int, Session]] = deque()


@dataclass(frozen=True, slots=True)
class Place:
    """Where sessions are made: `target` and `profile` of `connect`."""

    target: str | None
    profile: str | None

    def client(self) -> Client:
        """Returns the client that all estimators of this process and place share."""
        key = (os.getpid(), self)  # a connection does not survive a fork
        with _lock:
            if key not in _clients:
                _clients[key] = connect(self.target, profile=self.profile)
            return _clients[key]


class Trained:
    """A session that an estimator trains, made when it is first needed.

    A pickle or deep copy has the state of the session, and becomes a session of its own when it is used, at the same
    place. A session that no one has any more is deleted when another one is made.
    """

    def __init__(self, place: Place, make: Callable[[Client], Session]) -> None:
        """Makes the session."""
        self._place, self._state = place, b""
        self._session: Session | None = self._kept(make)

    @property
    def session(self) -> Session:
        """The session."""
        if self._session is None:
            self._session = self._kept(lambda client: client.import_session(io.BytesIO(self._state)))
            self._state = b""
        return self._session

    def _kept(self, make: Callable[[Client], Session]) -> Session:
        _delete_abandoned()
        session = make(self._place.client())
        # A collector may run inside a call of the very connection, so that it can only be noted what is to be done.
        weakref.finalize(self, _abandoned.append, (os.getpid(), session)).atexit = False
        return session

    def __getstate__(self) -> dict[str, Any]:
        file = io.BytesIO(self._state)
        if self._session is not None:
            self._session.export(file)
        return {"place": self._place, "state": file.getvalue()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._place, self._state, self._session = state["place"], state["state"], None


def _delete_abandoned() -> None:
    with contextlib.suppress(IndexError):
        while True:
            owner, session = _abandoned.popleft()
            if owner == os.getpid():
                with contextlib.suppress(BackwireError):
                    session.close()
