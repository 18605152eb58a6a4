"""Keeps what a session is: in memory while it is used, and on disk if it is durable."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from backwire_server.engine.check import GradientCheck
from backwire_server.engine.graph import Parameter
from backwire_server.engine.stopping import Stopped
from backwire_server.sessions.budget import Account
from backwire_server.sessions.calls import (
    Answered,
    CheckCall,
    CheckpointInfo,
    DescribeCall,
    ForwardCall,
    ForwardResult,
    TrainCall,
)
from backwire_server.sessions.content import Content, Until, recovered
from backwire_server.sessions.describing import MadeSession, describe_made
from backwire_server.sessions.durable import Durability, Mutation, Recovery, SessionFiles
from backwire_server.sessions.errors import Cancelled, CheckpointNotFound, NotDurable, SessionQuarantined
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.processors import Processors
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.saving import Saving
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.state import RequestImage
from backwire_server.sessions.together import turn_of
from backwire_server.sessions.trainer import Mutating

_LOG = logging.getLogger("backwire.sessions")

Open = Callable[[], SessionFiles]


class Keeper:
    """The content of a session and its files.

    For one thread at a time, but for `spec`, `durability`, `progress`, `awake`, `nbytes` and `replay_bytes`.

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
        self.session_id = session_id
        self.durability = durability
        self.shared = False
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
        self._look: Open | None = None
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

    def belong(self, reopen: Open, look: Open, files: SessionFiles | None = None, *, shared: bool = False) -> None:
        """Keeps what is on disk, too: `files` that are open, and later what `reopen` returns.

        What `look` returns is only read from, whoever has them open, which may be other servers if they are `shared`.
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
    def content(self) -> Content:
        """The content, made from the files if it is not in memory.

        Raises SessionQuarantined when they are damaged, StorageFailed when they cannot be read, and OutOfMemory.
        """
        content = self._content or self._wake()
        if self._saving is not None and self._saving.done:
            self._saving.record(content.log)
            self._saving = None
        return content

    @property
    def spec(self) -> SessionSpec:
        """What the session was made from, without first values where they are known otherwise."""
        if (spec := self._spec) is not None:
            return spec
        assert self._look is not None
        files = self._look()  # of its own, since others may use the ones that are open
        try:
            return files.spec().without_sources()
        finally:
            files.close()

    @property
    def declared(self) -> Mapping[str, Parameter]:
        """The graph's parameters by name."""
        return {parameter.name: parameter for parameter in self.spec.graph.parameters}

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

    def stage(self, call: TrainCall) -> None:
        """Sends inputs of a call to where they are computed with, if the content is in memory. For any thread."""
        content = self._content
        if content is not None:
            content.trainer.stage(call)

    def reserve(self, nbytes: int) -> None:
        """Sets bytes aside until `settle`; raises OutOfMemory."""
        self._account.reserve(nbytes)

    def settle(self) -> None:
        """States what the content holds."""
        self._account.settle(self.content.nbytes if self.awake else 0)

    def evaluate(self, call: ForwardCall, scope: CallScope) -> ForwardResult:
        """Computes outputs and loss in eval mode, as long as the caller waits for them."""
        content = self.content
        with _Heeding(scope), self._processors.turn(scope) as stop:
            return content.trainer.evaluate(call, stop)

    def check_gradients(self, call: CheckCall, scope: CallScope) -> GradientCheck:
        """Compares the gradient of the loss with central differences, as long as the caller waits for that."""
        content = self.content
        with _Heeding(scope), self._processors.turn(scope) as stop:
            return content.trainer.check_gradients(call, scope.check, stop)

    def describe(self, call: DescribeCall, scope: CallScope) -> MadeSession:
        """Tells what it was made from and what a pass takes, as long as the caller waits for that."""
        content, spec = self.content, self.spec
        with _Heeding(scope), self._processors.turn(scope) as stop:
            return describe_made(scope, spec, content.trainer, call, self._limits, stop)

    def perform(self, call: Mutating, key: RequestKey | None, scope: CallScope) -> Answered:
        """Does a mutation: computes, writes it to the journal, then changes the state. All of it, or nothing."""
        content, files = self.content, self._files
        call = content.trainer.explicit(call)
        dropped = content.trainer.passes.dropped
        written = False

        def ready() -> None:
            nonlocal written
            scope.check()
            if files is not None:
                began = time.perf_counter()
                self.written = files.append(Mutation(call, key, tuple(dropped)))
                scope.spent.journal += time.perf_counter() - began
                written = True
            dropped.clear()

        try:
            turn = self._processors.turn(scope)
            with _Heeding(scope), turn_of(content.trainer, call, ready, turn) as stop:
                began = time.perf_counter()
                answer = content.perform(call, ready, stop)
                self._computed += time.perf_counter() - began
        except BaseException:
            if written or self.broken:
                self.forget()  # memory lacks what the disk has: it is made from that again
            raise
        content.log.record(key, answer)
        if files is not None:
            self._checkpoint(content, files)
        return answer

    def flush(self, scope: CallScope) -> Callable[[], None] | None:
        """Returns what returns when all that the journal has by now is on the disk; None where nobody waits for that.

        It may be called by another thread, whatever becomes of the content meanwhile; it raises StorageFailed.
        """
        files, number = self._files, self.written
        if files is None or self.durability is not Durability.FSYNC:
            return None
        return partial(files.wait, number, scope)

    @property
    def saving(self) -> Saving | None:
        """What `save` has begun and was not done when `content` was last looked at."""
        return self._saving

    def save(self, name: str, key: RequestKey | None) -> Saving:
        """Has the content of now written to disk under a name, while it goes on; only when nothing else is `saving`.

        The request is remembered once that is done. Raises NotDurable, StorageFailed.
        """
        self._saving = Saving(key, self.files.save(name, self.content.image(briefly=True), key))
        return self._saving

    def go_back(self, name: str, step: int | None, key: RequestKey | None) -> CheckpointInfo:
        """Makes the content that of a checkpoint, or that of right after a step; the name is empty then.

        Raises CheckpointNotFound, and what `content` raises. The lease and the remembered requests stay.
        """
        files, before = self.files, self.content
        spec = files.spec()
        self._account.reserve(spec.state_bytes)
        if step is None:
            found = self._made(spec, Recovery(files.load(name), iter(())))
        else:
            found = self._made(spec, files.rewind(step), lambda trainer: trainer.step == step)
            if found.trainer.step != step:
                raise CheckpointNotFound(
                    f"no step {step} follows from what is kept: the session was never there since its oldest "
                    "checkpoint; ListCheckpoints tells which there are",
                    field="step",
                )
        found.trainer.passes.clear()
        found.log, found.lease = before.log, before.lease
        image = found.image()
        digest = image.state.digest()
        answer = CheckpointInfo(name, found.trainer.step, digest, time.time(), image.state.nbytes)
        if key is not None:
            image.requests = [*image.requests, RequestImage(key, answer)]
        files.restart(image)
        found.log.record(key, answer)
        before.leave()
        self._content = found
        return answer

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

    def hand_over(self, replica: str) -> str:
        """Writes the content to disk, has another server have the files, and returns where that is called.

        Raises NotDurable, and what `SessionFiles.hand_over` raises; then all is as before.
        """
        files = self.files
        if not files.broken and files.dirty:
            files.checkpoint(self.content.image(), background=False)
        address = files.hand_over(replica)
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

    def _checkpoint(self, content: Content, files: SessionFiles) -> None:
        """Has a checkpoint written in the background if one is due, or a replay would take long."""
        passing = not files.due
        if not passing or files.lags(self._computed):
            files.checkpoint(content.image(briefly=True), background=True, passing=passing)
            self._computed = 0.0

    def _opened(self) -> SessionFiles:
        if self._files is None:
            assert self._open is not None
            self._files = self._open()
        return self._files

    def _wake(self) -> Content:
        if self.damage is not None:
            raise SessionQuarantined(str(self.damage))
        try:
            files = self._opened()
            spec = files.spec()
            self._account.reserve(spec.state_bytes)
            self._content = self._made(spec, files.recover())
            for each in files.requests():
                if each.key.request_id not in self._content.log:
                    self._content.log.know(each.key, each.answer)
            self._spec = spec.without_sources()
        except BaseException as error:
            lost = None if self._files is None else self._files.lost
            if lost is None and isinstance(error, SessionQuarantined):
                self.damage = error
                _LOG.error("session %s is quarantined: %s", self.session_id, error)
            self.forget()
            if lost is not None:
                raise lost from error
            raise
        return self._content

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


class _Heeding:
    """Raises what `scope.check` raises, or else Cancelled, when the block is stopped; a class for speed, as Turn is."""

    __slots__ = ("_scope",)

    def __init__(self, scope: CallScope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Stopped):
            self._scope.check()
            raise Cancelled("the call was cancelled before it was done; nothing was changed") from None
