"""All sessions of a server: creates, finds, lists and deletes them, and ends those that nobody uses."""

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backwire_server.sessions.budget import Budget
from backwire_server.sessions.calls import CountResult
from backwire_server.sessions.errors import SessionNotFound, TooManySessions
from backwire_server.sessions.info import Home, SessionInfo
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.locks import KeyedLocks
from backwire_server.sessions.paging import PageTokens, page_limit
from backwire_server.sessions.requests import RequestKey, RequestLog
from backwire_server.sessions.scope import UNBOUNDED, CallScope
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec

_LOG = logging.getLogger("backwire.sessions")

HERE = Home()
SWEEP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """Some sessions, oldest first, and the token of the next page, empty after the last."""

    sessions: list[SessionInfo]
    next_token: str


class SessionStore:
    """The sessions of a server, in the order of their creation. May be used by several threads at once.

    A thread of its own drops what is too old, every SWEEP_SECONDS, until `close`.
    """

    def __init__(self, limits: Limits, home: Home = HERE) -> None:
        self.limits = limits
        self._home = home
        self.budget = Budget(limits.max_total_bytes)
        self._mutex = threading.Lock()
        self._sessions: dict[str, tuple[int, Session]] = {}
        self._created = 0
        self._building = 0
        self._log = RequestLog()
        self._turns = KeyedLocks()
        self._tokens = PageTokens()
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_forever, name="backwire-sweeper", daemon=True)
        self._sweeper.start()

    def create(self, scope: CallScope, spec: SessionSpec, key: RequestKey | None = None) -> SessionInfo:
        """Returns the new session.

        Raises EngineError for a graph that is wrong, LimitExceeded for one that is too large or when there are too many
        sessions. A repeated key returns the session as it was created.
        """
        spec.check(self.limits)
        with self._once(key, scope) as answer:
            if isinstance(answer, SessionInfo):
                return answer
            with self._room_for_one():
                unique = f"{self._home.id_prefix}{secrets.token_urlsafe(18)}"
                session = Session(unique, spec, self.limits, self.budget.account(), self._home.address)
                try:
                    scope.check()
                except BaseException:
                    session.close(UNBOUNDED)
                    raise
                info = session.info()
                with self._mutex:
                    self._sessions[session.session_id] = self._created, session
                    self._created += 1
                    self._log.record(key, info)
            return info

    @property
    def census(self) -> tuple[int, int]:
        """How many sessions there are, and how many were ever created."""
        with self._mutex:
            return len(self._sessions), self._created

    def get(self, session_id: str) -> Session:
        """Returns the session and notes its use; raises SessionNotFound."""
        with self._mutex:
            found = self._sessions.get(session_id)
        if found is None:
            raise SessionNotFound(
                f"there is no session {session_id[:64]!r}: it never was, it was deleted, or the server restarted; "
                "create a new one",
                field="session_id",
            )
        found[1].touch()
        return found[1]

    def list(self, page_size: int = 0, page_token: str = "") -> Page:
        """Returns a page of sessions: at most `page_size`, 100 for 0, and fewer when they would not fit one message.

        Raises InvalidRequest for a negative size, InvalidPageToken for a token that `list` did not issue.
        """
        size = page_limit(page_size)
        after = self._tokens.read(page_token) if page_token else -1
        with self._mutex:
            rest = [(number, session) for number, session in self._sessions.values() if number > after]
        found: list[SessionInfo] = []
        room = self.limits.max_message_bytes // 2
        for number, session in rest[:size]:
            info = session.info()
            room -= info.nbytes
            if found and room < 0:
                break
            found.append(info)
            after = number
        return Page(found, self._tokens.issue(after) if len(found) < len(rest) else "")

    def delete(self, scope: CallScope, session_id: str, key: RequestKey | None = None) -> None:
        """Ends a session after the calls that are in progress on it; raises SessionNotFound."""
        with self._once(key, scope) as answer:
            if answer is not None:
                return
            self.get(session_id).close(scope)
            with self._mutex:
                self._sessions.pop(session_id, None)
                self._log.record(key, CountResult(1))

    def close(self) -> None:
        """Ends the thread; sessions end with the process."""
        self._closing.set()
        self._sweeper.join()

    def sweep(self) -> None:
        """Drops passes that are too old, and sessions that were idle for too long."""
        with self._mutex:
            sessions = [session for _, session in self._sessions.values()]
        ended = [session.session_id for session in sessions if session.sweep()]
        with self._mutex:
            for session_id in ended:
                self._sessions.pop(session_id, None)

    def _sweep_forever(self) -> None:
        while not self._closing.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except Exception:
                _LOG.exception("a sweep failed; the next one may not")

    @contextmanager
    def _once(self, key: RequestKey | None, scope: CallScope) -> Iterator[object]:
        """Keeps requests of the same id apart; gives the answer to the first, or None when there was none."""
        if key is None:
            yield None
            return
        with self._turns.hold(key.request_id, scope):
            with self._mutex:
                answer = self._log.find(key)
            yield answer

    @contextmanager
    def _room_for_one(self) -> Iterator[None]:
        with self._mutex:
            if len(self._sessions) + self._building >= self.limits.max_sessions:
                raise TooManySessions(
                    f"the server keeps {self.limits.max_sessions:,} sessions, which is its limit; delete sessions that "
                    "are not needed, or raise --max-sessions",
                    quota="max_sessions",
                )
            self._building += 1
        try:
            yield
        finally:
            with self._mutex:
                self._building -= 1
