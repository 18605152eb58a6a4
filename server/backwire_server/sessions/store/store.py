"""All sessions of a server: creates, finds, lists and deletes them, and puts away those that nobody uses."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from backwire_server.sessions.budget import Budget
from backwire_server.sessions.caller import ANYONE, Caller, tenant_of
from backwire_server.sessions.calls import CountResult
from backwire_server.sessions.info import Home, SessionInfo
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.keeping.vault import Carrier, Vault
from backwire_server.sessions.limits import Limits, LimitsOf, unlimited
from backwire_server.sessions.replicas import absent
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED, CallScope
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.status import Overview
from backwire_server.sessions.store.arrivals import Arrivals
from backwire_server.sessions.store.awake import AwakeSessions
from backwire_server.sessions.store.listing import Page, infos_of
from backwire_server.sessions.store.maker import SessionMaker
from backwire_server.sessions.store.overview import overview_of
from backwire_server.sessions.store.paging import PageTokens, page_limit
from backwire_server.sessions.store.places import Places
from backwire_server.sessions.store.recoveries import Recoveries
from backwire_server.sessions.store.register import Register
from backwire_server.sessions.store.repetitions import Repetitions
from backwire_server.sessions.store.sweeper import Sweeper
from backwire_server.sessions.store.whereabouts import Whereabouts, whereabouts
from backwire_server.sessions.turns.processors import Processors

HERE = Home()


@dataclass(frozen=True, slots=True)
class _Made:
    """The answer to a request that made a session before the last restart."""

    session_id: str
    nbytes: int = 64


class SessionStore:
    """The sessions of a server, in the order of their creation. May be used by several threads at once.

    With a vault, sessions may be durable: those that it has are there from the beginning, and a thread makes those
    again whose journal has to be replayed. Another thread drops what is too old, until `close`.

    Attributes:
        limits: What sessions are held to.
        processors: What they take turns on.
    """

    def __init__(
        self,
        limits: Limits,
        home: Home = HERE,
        vault: Vault | None = None,
        carrier: Carrier | None = None,
        processors: Processors | None = None,
        limits_of: LimitsOf = unlimited,
        *,
        grouped: bool = False,
    ) -> None:
        """Keeps sessions in memory, and in the vault if there is one; a carrier is needed for export and import.

        What they compute takes turns on the processors, those that are `grouped` with others, see SessionMaker;
        `limits_of` tells what each tenant is held to besides.
        """
        self.limits = limits
        self.processors = processors or Processors(1)
        self.budget = Budget(limits.max_total_bytes, self._reclaim, limits_of)
        self._vault = vault
        self._replica = home.replica
        self._maker = SessionMaker(limits, self.budget, home, vault, carrier, self.processors, grouped=grouped)
        self._register = Register()
        self._arrivals = Arrivals(vault, self._maker, self._register.add)
        self._awake = AwakeSessions(limits.max_awake_sessions)
        self._places = Places(limits, limits_of, self._register.mutex)
        self._repetitions = Repetitions()
        self._tokens = PageTokens()
        self._recoveries = Recoveries(self._find(), lambda session_id: self.get(session_id).wake(UNBOUNDED))
        self._sweeper = Sweeper(self._register, self._awake)
        self._recoveries.start()
        self._sweeper.start()

    def create(
        self,
        scope: CallScope,
        spec: SessionSpec,
        key: RequestKey | None = None,
        durability: Durability | None = None,
    ) -> SessionInfo:
        """Returns the new session.

        Raises EngineError for a graph that is wrong, LimitExceeded for one that is too large or when there are too many
        sessions, NotDurable for a durability that this server does not have. A repeated key returns the session as it
        was created.
        """
        spec.check(self.limits)
        level = self._maker.level(durability)

        return self._once(scope, key, lambda: self._maker.new(scope, spec, level, key))

    def fork(self, scope: CallScope, session_id: str, key: RequestKey | None = None) -> SessionInfo:
        """Returns a branch of a session; raises SessionNotFound, LimitExceeded."""

        def make() -> Session:
            found = self.get(session_id, scope.caller)
            return found.branch(scope, lambda parent: self._maker.branch(scope, parent, key))

        return self._once(scope, key, make, tenant_of(session_id))

    def import_session(
        self, scope: CallScope, path: str, key: RequestKey | None = None, durability: Durability | None = None
    ) -> SessionInfo:
        """Returns a new session that is what a file says; raises InvalidExport, and what `create` raises."""
        level = self._maker.level(durability)
        return self._once(scope, key, lambda: self._maker.imported(scope, path, level, key))

    def export(self, scope: CallScope, session_id: str) -> Iterator[bytes]:
        """Yields a session as a file; raises SessionNotFound."""
        return self.get(session_id, scope.caller).export(scope, self._maker.carrier)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Gives the path of a file that exists for the block alone."""
        descriptor, path = tempfile.mkstemp(dir=self._vault.scratch if self._vault else None, prefix="backwire-")
        os.close(descriptor)
        try:
            yield path
        finally:
            os.unlink(path)

    def when_recovered(self, act: Callable[[], None]) -> None:
        """Calls `act` once the journals of all sessions were replayed: at once, or in another thread."""
        self._recoveries.when_done(act)

    @property
    def recovering(self) -> int:
        """Of how many sessions the journal is still to be replayed since the start."""
        return self._recoveries.remaining

    @property
    def census(self) -> tuple[int, int]:
        """How many sessions there are, and how many were ever created."""
        return self._register.census

    @property
    def tenants(self) -> Mapping[str, int]:
        """How many sessions each tenant has."""
        return self._register.tenants

    @property
    def whereabouts(self) -> Whereabouts:
        """How many sessions are in memory and on disk alone; waits for none."""
        return whereabouts(self._register.of())

    def get(self, session_id: str, caller: Caller = ANYONE) -> Session:
        """Returns the session and notes its use.

        Raises SessionNotFound, also for one that is not the caller's, and WrongReplica for one of another server.
        """
        session = self.look(session_id, caller)
        session.touch()
        if session.durable:
            self._awake.used(session)
        return session

    def look(self, session_id: str, caller: Caller = ANYONE) -> Session:
        """Returns the session for those who only look on; raises what `get` raises."""
        if not caller.owns(session_id):
            raise absent(session_id, "")
        if (found := self._register.find(session_id)) is not None:
            return found
        if (arrived := self._arrivals.find(session_id)) is not None:
            return arrived
        if self._arrivals.anywhere(session_id):
            raise absent(session_id, "")
        raise absent(session_id, self._replica, self._arrivals.elsewhere(session_id))

    def elsewhere(self, session_id: str, caller: Caller = ANYONE) -> str:
        """Returns the address of another server that has the caller's session open; empty for none."""
        found = self._register.find(session_id)
        held = found is not None and found.held
        return "" if held or not caller.owns(session_id) else self._arrivals.elsewhere(session_id)

    def overview(self, most: int = 0, caller: Caller = ANYONE) -> Overview:
        """As `overview_of` the caller's sessions: at most so many, 100 for 0; raises InvalidRequest for below 0."""
        return overview_of(self._register.of(caller), page_limit(most, "max_sessions"))

    def list(self, page_size: int = 0, page_token: str = "", caller: Caller = ANYONE) -> Page:
        """Returns a page of the caller's sessions: at most `page_size`, 100 for 0, and fewer when one message is full.

        Those that cannot be made from their files are left out; those that another server has open stand where their
        last checkpoint does. Raises Recovering while they are being made, InvalidRequest for a negative size,
        InvalidPageToken for a token that `list` did not issue.
        """
        size = page_limit(page_size)
        after = self._tokens.read(page_token) if page_token else -1
        rest = self._register.after(after, caller)
        if not page_token or len(rest) <= size:  # at the beginning and before the end, since that looks at all
            self._arrivals.find_all(self._register.ids)
            rest = self._register.after(after, caller)
        found, last = infos_of(
            rest[:size], self.limits.max_message_bytes // 2, self._register.forget, recovering=bool(self.recovering)
        )
        after = after if last is None else last
        return Page(found, self._tokens.issue(after) if rest and rest[-1][0] > after else "")

    def delete(self, scope: CallScope, session_id: str, key: RequestKey | None = None) -> None:
        """Ends a session after the calls that are in progress on it; raises SessionNotFound."""
        with self._repetitions.answered(key, scope) as answer:
            if answer is not None:
                return
            session = self.get(session_id, scope.caller)
            vault = self._vault if session.durable else None
            session.close(scope, partial(vault.delete, session_id, key, scope.check) if vault else lambda: None)
            self._register.forget(session_id)
            self._repetitions.record(key, scope.caller.tenant, CountResult(1))
            self._awake.remove(session_id)

    def close(self, seconds: float = 0.0) -> None:
        """Ends the threads and closes files; what is not durable ends with the process.

        Durable sessions hibernate, as far as so much time suffices, so that nothing need be replayed later.
        """
        self._sweeper.stop()
        self._recoveries.stop()
        self._awake.shut(seconds)
        if self._vault is not None:
            self._vault.close()

    def sweep(self) -> None:
        """Drops at once what the sweeper does from time to time; see there."""
        self._sweeper.sweep()

    def _find(self) -> Sequence[str]:
        """Has the sessions of the vault, and returns the ids of those whose journal has to be replayed."""
        if self._vault is None:
            return []
        dirty = []
        for entry in self._vault.entries():
            self._register.add(self._maker.asleep(entry))
            self._repetitions.record(entry.key, tenant_of(entry.session_id), _Made(entry.session_id))
            if entry.dirty:
                dirty.append(entry.session_id)
        for session_id, key in self._vault.deletions():
            self._repetitions.record(key, tenant_of(session_id), CountResult(1))
        return dirty

    def _once(
        self, scope: CallScope, key: RequestKey | None, make: Callable[[], Session], tenant: str = ""
    ) -> SessionInfo:
        """Returns the session that `make` makes, or the one that the same request made before."""
        with self._repetitions.answered(key, scope) as answer:
            if answer is None and key is not None:
                answer = self._made_elsewhere(key, tenant or scope.caller.tenant, scope.caller.tenant)
            if isinstance(answer, SessionInfo):
                return answer
            if isinstance(answer, _Made):
                return self.get(answer.session_id).info()
            with self._places.one(tenant or scope.caller.tenant, self._register.ids) as place:
                session = make()
                info = session.info()
                place.session_id = session.session_id
                self._register.add(session, instead=True)
                self._repetitions.record(key, scope.caller.tenant, info)
            if session.durable:
                self._awake.used(session)
            return info

    def _made_elsewhere(self, key: RequestKey, tenant: str, caller: str) -> object:
        """Returns the answer to a request that another server was sent before; None where none was."""
        entry = self._arrivals.of_request(key.request_id, tenant)
        if entry is None:
            return None
        self._repetitions.record(entry.key or key, caller, _Made(entry.session_id))
        return self._repetitions.find(key, caller)

    def _reclaim(self, nbytes: int) -> None:
        """Has durable sessions hibernate until so many bytes were given back, as far as there are idle ones."""
        target = self.budget.used - nbytes
        while self.budget.used > target and self._awake.put_away():
            pass
