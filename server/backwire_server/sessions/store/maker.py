"""Makes sessions: new ones, branches, those of files and those that are on disk."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from backwire_server.sessions.budget import Account, Budget
from backwire_server.sessions.caller import tenant_of
from backwire_server.sessions.errors import InvalidExport, NotDurable
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.info import Home, Standing
from backwire_server.sessions.keeping.content import Content
from backwire_server.sessions.keeping.durable import Durability, SessionFiles
from backwire_server.sessions.keeping.keeper import Keeper
from backwire_server.sessions.keeping.kept import Look, Open
from backwire_server.sessions.keeping.outlines import Outline, Outlines
from backwire_server.sessions.keeping.vault import Carrier, Entry, Vault
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.turns.processors import Processors

MakeFiles = Callable[[Keeper, Content], SessionFiles]


class SessionMaker:
    """Makes sessions that live in this process. May be used by several threads at once.

    Attributes:
        vault: Where durable sessions are kept; None for a server that has none.
        carrier: What puts sessions into files; it is needed to export and to import.
    """

    def __init__(
        self,
        limits: Limits,
        budget: Budget,
        home: Home,
        vault: Vault | None = None,
        carrier: Carrier | None = None,
        processors: Processors | None = None,
        *,
        grouped: bool = False,
    ) -> None:
        """Sessions that compute by JAX and are kept in memory are to be `grouped`, or not."""
        self._grouped = grouped
        self._processors = processors
        self.vault = vault
        self._carrier = carrier
        self._limits = limits
        self._budget = budget
        self._home = home
        self._outlines = Outlines()

    @property
    def carrier(self) -> Carrier:
        """What puts sessions into files."""
        assert self._carrier is not None, "a store without a carrier neither exports nor imports"
        return self._carrier

    def level(self, asked: Durability | None) -> Durability:
        """Returns how durable a session will be that asks for this; raises NotDurable when that cannot be."""
        if self.vault is not None:
            return asked or self.vault.default
        if asked in (None, Durability.MEMORY):
            return Durability.MEMORY
        raise NotDurable(
            f"durability {asked.name} takes a data directory; start the server with --data-dir, or create the session "
            "with durability MEMORY",
            field="durability",
        )

    def new(self, scope: CallScope, spec: SessionSpec, level: Durability, key: RequestKey | None) -> Session:
        """Returns a session that begins; raises EngineError for a graph that is wrong, LimitExceeded, StorageFailed."""
        spec = self._of_here(spec, level)

        def files(keeper: Keeper, _: Content) -> SessionFiles:
            return self._vault().create(keeper.session_id, spec, level, key, check=scope.check)

        return self._make(scope, spec, level, key, partial(Content.new, spec), files)

    def imported(self, scope: CallScope, path: str, level: Durability, key: RequestKey | None) -> Session:
        """Returns the session that a file holds; raises InvalidExport, and what `new` raises."""
        found, image = self.carrier.unpack(path)
        spec = self._of_here(found, level)

        def content(limits: Limits, account: Account) -> Content:
            try:
                return Content.of(spec, image, limits, account)
            except ValueError as error:
                raise InvalidExport(f"the file does not fit its own graph: {error}; export again") from error

        def files(keeper: Keeper, content: Content) -> SessionFiles:
            return self._vault().create(keeper.session_id, spec, level, key, content.image(), scope.check)

        with image:
            spec.check(self._limits)
            return self._make(scope, spec, level, key, content, files)

    def branch(self, scope: CallScope, parent: Keeper, key: RequestKey | None) -> Session:
        """Returns a session that shares what another has until either of them changes it; raises as `new` does."""

        def files(keeper: Keeper, _: Content) -> SessionFiles:
            return parent.files.fork(keeper.session_id, key, scope.check)

        spec = parent.spec
        content = partial(parent.content.branch, spec)
        return self._make(scope, spec, parent.durability, key, content, files, parent.session_id)

    def id_of_request(self, request_id: str, tenant: str) -> str:
        """Returns the id of the durable session that a tenant's request makes; empty where that is drawn."""
        secret = self.vault.secret if self.vault is not None and request_id else b""
        return self._home.id_of_request(secret, request_id, tenant) if secret else ""

    def asleep(self, entry: Entry) -> Session:
        """Returns a session that is on disk alone, until it is called."""
        keeper = self._keeper(entry.session_id, entry.durability)
        keeper.belong(*self._ways(entry.session_id, entry.definition), shared=self._vault().shared)
        standing = None if entry.dirty else Standing(entry.step, entry.contributions)
        return self._session(keeper, entry.created, standing)

    def _make(
        self,
        scope: CallScope,
        spec: SessionSpec,
        level: Durability,
        key: RequestKey | None,
        content: Callable[[Limits, Account], Content],
        files: MakeFiles,
        parent: str = "",
    ) -> Session:
        durable = level is not Durability.MEMORY
        request_id = key.request_id if key else ""
        tenant = tenant_of(parent) if parent else scope.caller.tenant
        session_id = (self.id_of_request(request_id, tenant) if durable else "") or self._home.new_id(
            durable=durable, request_id=request_id, parent=parent, tenant=tenant
        )
        keeper = self._keeper(session_id, level)
        made = keeper.begin(spec, content)
        created = time.time()
        try:
            scope.check()
            if durable:
                opened = files(keeper, made)
                self._outlines.keep(opened.definition, Outline.of(spec))
                ways = self._ways(keeper.session_id, opened.definition)
                keeper.belong(*ways, opened, shared=self._vault().shared)
                created = opened.created
            return self._session(keeper, created, Standing())
        except BaseException:
            keeper.forget()
            raise

    def _keeper(self, session_id: str, level: Durability) -> Keeper:
        return Keeper(session_id, self._limits, self._budget.account(tenant_of(session_id)), level, self._processors)

    def _of_here(self, spec: SessionSpec, level: Durability) -> SessionSpec:
        """Returns the specification with what this server decides: journals must be replayed to the bit, alone."""
        grouped = self._grouped and spec.executor is Executor.JAX and level is Durability.MEMORY
        return replace(spec, grouped=grouped)

    def _session(self, keeper: Keeper, created: float, standing: Standing | None) -> Session:
        return Session(keeper, self._limits, self._home.address, created=created, standing=standing)

    def _ways(self, session_id: str, definition: str) -> tuple[Open, Look]:
        """Returns what opens the files of a session, and what only looks at them; see Entry for the definition."""
        return partial(self._vault().open, session_id), partial(self._outline, session_id, definition)

    def _outline(self, session_id: str, definition: str) -> Outline:
        """Returns what there is to tell of a session on disk; raises what `Vault.look` raises."""
        vault = self._vault()
        if (known := self._outlines.find(definition)) is not None:
            vault.check(session_id)
            return known
        return vault.look(session_id, lambda files: self._outlines.keep(files.definition, Outline.of(files.spec())))

    def _vault(self) -> Vault:
        assert self.vault is not None
        return self.vault
