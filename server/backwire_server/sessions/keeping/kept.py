"""Where the content of a session is: in memory while it is used, and on disk if it is durable."""

import logging
import time
from collections.abc import Callable, Mapping

from backwire_server.engine.graph import Parameter
from backwire_server.sessions.budget import Account
from backwire_server.sessions.errors import NotDurable, SessionError, SessionQuarantined
from backwire_server.sessions.keeping.content import Content, Until, recovered
from backwire_server.sessions.keeping.durable import Durability, Loss, Recovery, SessionFiles
from backwire_server.sessions.keeping.outlines import Outline
from backwire_server.sessions.keeping.saving import Saving
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.turns.processors import Processors

_LOG = logging.getLogger("backwire.sessions")

Open = Callable[[Check], SessionFiles]
Look = Callable[[], Outline]


class Kept:
    """The content of a session and its files, and where that is at the moment.

    For one thread at a time, but for `outline`, `durability`, `progress`, `awake`, `nbytes` and `replay_bytes`.

    Attributes:
        session_id: The session's id.
        durability: What its mutations outlive.
        progress: While it is made from its files: how many of how many mutations were done again.
        written: The number of the last record in its journal, 0 for none so far.
        shared: Whether other servers may open its files.
        damage: Why its files cannot be used; None as far as they can.
    """

    def __init__(
        self,
        session_id: str,
        limits: Limits,
        account: Account,
        durability: Durability,
        processors: Processors | None = None,
    ) -> None:
        """Keeps nothing yet: see `begin` and `belong`. What it computes takes turns with others on the processors."""
        self._processors = processors or Processors(1)
        self.session_id, self.durability, self.shared = session_id, durability, False
        self.progress: tuple[int, int] | None = None
        self.written = 0
        self._limits = limits
        self._account = account
        self._content: Content | None = None
        self._spec: SessionSpec | None = None
        self._files: SessionFiles | None = None
        self._saving: Saving | None = None
        self._computed = 0.0  # seconds, since the last checkpoint or in a replay of what followed it
        self._open: Open | None = None
        self._look: Look | None = None
        self.damage: SessionQuarantined | None = None

    def begin(self, spec: SessionSpec, make: Callable[[Limits, Account], Content]) -> Content:
        """Keeps what `make` makes, in memory; raises OutOfMemory before it is made."""
        self._account.reserve(spec.state_bytes)
        try:
            self._content = make(self._limits, self._account)
        except BaseException:
            self._account.settle(0)
            raise
        self._spec = spec.without_sources()
        return self._content

    def belong(self, reopen: Open, look: Look, files: SessionFiles | None = None, *, shared: bool = False) -> None:
        """Keeps what is on disk, too: `files` that are open, and later what `reopen` returns.

        `look` tells of the session, whoever has them open, which may be other servers if they are `shared`.
        """
        self._open, self._look, self._files, self.shared = reopen, look, files, shared

    @property
    def durable(self) -> bool:
        """Whether there are files."""
        return self.durability is not Durability.MEMORY

    @property
    def awake(self) -> bool:
        """Whether the content is in memory."""
        return self._content is not None

    @property
    def nbytes(self) -> int:
        """The bytes that the session holds in memory."""
        return self._account.held

    @property
    def replay_bytes(self) -> int:
        """The bytes of journal that follow the last checkpoint, 0 where no files are open."""
        files = self._files
        return 0 if files is None else files.replay_bytes

    @property
    def broken(self) -> bool:
        """Whether files failed so that the content must be made from them again, since it may not be what they have."""
        return self._files is not None and self._files.broken

    @property
    def lost(self) -> SessionError | None:
        """Why the files are not this server's any more; None while they are."""
        return None if self._files is None else self._files.lost

    @property
    def content(self) -> Content:
        """The content, made from the files if it is not in memory.

        Raises SessionQuarantined when they are damaged, StorageFailed when they cannot be read, and OutOfMemory.
        """
        content = self._content or self.wake()
        if self._saving is not None and self._saving.done:
            self._saving.record(content.log)
            self._saving = None
        return content

    @property
    def spec(self) -> SessionSpec:
        """What the session was made from, without first values; as long as the content is in memory."""
        assert self._spec is not None
        return self._spec

    @property
    def outline(self) -> Outline:
        """What it tells of that, wherever it is; raises what `Vault.look` raises."""
        if (spec := self._spec) is not None:
            return Outline.of(spec)
        assert self._look is not None
        return self._look()

    @property
    def declared(self) -> Mapping[str, Parameter]:
        """The graph's parameters by name."""
        return {parameter.name: parameter for parameter in self.outline.parameters}

    @property
    def files(self) -> SessionFiles:
        """The files; raises NotDurable when there are none."""
        self.check_durable()
        return self._opened()

    def check_durable(self) -> None:
        """Raises NotDurable when there are no files."""
        if not self.durable:
            raise NotDurable(
                f"session {self.session_id!r} is kept in memory alone; start the server with --data-dir, and create "
                "sessions with durability JOURNAL or FSYNC"
            )

    def reserve(self, nbytes: int) -> None:
        """Sets bytes aside until `settle`; raises OutOfMemory."""
        self._account.reserve(nbytes)

    def settle(self) -> None:
        """States what the content holds."""
        self._account.settle(self.content.nbytes if self.awake else 0)

    def hibernate(self) -> bool:
        """Writes the content to disk and drops it from memory if it is durable; tells whether it is there no more."""
        if self._content is None:
            return True
        if not self.durable:
            return False
        files = self._opened()
        if not files.broken and files.dirty:
            files.checkpoint(self.content.image(), background=False)
        self.forget()
        return True

    def hand_over(self, replica: str, check: Check = unchecked) -> str:
        """Writes the content to disk if it is in memory, has another server have the files, and tells where that is.

        Raises NotDurable, and what `SessionFiles.hand_over` raises; then all is as before. `check` is as in `wake`.
        """
        self.check_durable()
        files = self._opened(check)

        def write() -> None:
            if self.awake and not files.broken and files.dirty:
                files.checkpoint(self.content.image(), background=False)

        try:
            address = files.hand_over(replica, write)
        except BaseException:
            if not self.awake:
                self.forget()
            raise
        self.forget()
        return address

    def forget(self) -> None:
        """Drops the content and closes the files."""
        content, files = self._content, self._files
        self._content = self._spec = self._files = None
        self._computed = 0.0
        if content is not None:
            content.leave()
        if files is not None:
            files.close()  # what is being saved is on the disk then, and the request remembered there
        self._account.settle(0)

    def _opened(self, check: Check = unchecked) -> SessionFiles:
        if self._files is None:
            assert self._open is not None
            self._files = self._open(check)
        return self._files

    def wake(self, check: Check = unchecked) -> Content:
        """Makes the content from the files, as `content`; calls `check` while they are waited for, which may raise."""
        if self.damage is not None:
            raise SessionQuarantined(str(self.damage))
        try:
            files = self._opened(check)
            spec = files.spec()
            self._account.reserve(spec.state_bytes)
            recovery = files.recover()
            try:
                self._content = self._made(spec, recovery)
            finally:
                if recovery.loss is not None:  # which is not found again
                    self._tell(recovery.loss)
            for each in files.requests():
                if each.key.request_id not in self._content.log:
                    self._content.log.know(each.key, each.answer)
            self._spec = spec.without_sources()
        except BaseException as error:
            if (lost := self.lost) is None and isinstance(error, SessionQuarantined):
                self.damage = error
                _LOG.error("session %s is quarantined: %s", self.session_id, error)
            self.forget()
            if lost is not None:
                raise lost from error
            raise
        return self._content

    def _tell(self, loss: Loss) -> None:
        _LOG.warning(
            "session %s goes on from step %s, record %d of its journal: a loss of power took what came after, at least "
            "%d records, of which %d bytes were left; durability fsync outlives that",
            self.session_id,
            self._content.trainer.step if self._content else "(not known yet)",
            loss.record,
            loss.records,
            loss.nbytes,
        )

    def _made(self, spec: SessionSpec, recovery: Recovery, until: Until = lambda _: False) -> Content:
        count = recovery.count

        def tell(done: int) -> None:
            self.progress = done, count

        began = time.perf_counter()
        try:
            if count:
                tell(0)
            return recovered(spec, recovery, self._limits, self._account, progress=tell, until=until)
        finally:
            self.progress = None
            self._computed = time.perf_counter() - began
