"""What calls do with what a session keeps: they compute with its content, change it, and have that written."""

import math
import time
from collections.abc import Callable
from functools import partial

from backwire_server.engine.check import GradientCheck
from backwire_server.engine.stopping import Stopped
from backwire_server.sessions.calls import (
    Answered,
    CheckCall,
    CheckpointInfo,
    DescribeCall,
    ForwardCall,
    ForwardResult,
    TrainCall,
)
from backwire_server.sessions.describing import MadeSession, describe_made
from backwire_server.sessions.errors import Cancelled, CheckpointNotFound
from backwire_server.sessions.keeping.content import Content
from backwire_server.sessions.keeping.durable import Durability, Mutation, Recovery, SessionFiles
from backwire_server.sessions.keeping.kept import Kept
from backwire_server.sessions.keeping.saving import Saving
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.training.state import RequestImage
from backwire_server.sessions.training.together import turn_of
from backwire_server.sessions.training.trainer import Mutating


class Keeper(Kept):
    """Does what calls ask of a session, as `sessions.session` has them come. For one thread at a time, but for `stage`.

    Its content is made from its files first where it is not in memory, so that each call may raise what `content` does.
    """

    def stage(self, call: TrainCall) -> None:
        """Sends inputs of a call to where they are computed with, if the content is in memory. For any thread."""
        content = self._content
        if content is not None:
            content.trainer.stage(call)

    def evaluate(self, call: ForwardCall, scope: CallScope) -> ForwardResult:
        """Computes outputs and loss in eval mode, as long as the caller waits for them."""
        content = self.content
        with _Heeding(scope), self._processors.turn(scope) as stop:
            return content.trainer.evaluate(call, stop)

    def check_gradients(self, call: CheckCall, scope: CallScope) -> GradientCheck:
        """Compares the gradient of the loss with central differences, as long as the caller waits for that."""
        content = self.content
        with _Heeding(scope), self._processors.turn(scope) as stop:
            return content.trainer.check_gradients(call, scope.check, scope.remaining, stop)

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

        turn = self._processors.turn(scope)

        def ready() -> None:
            nonlocal written
            scope.check()
            if files is not None:
                turn.writes = began = time.perf_counter()
                self.written = files.append(Mutation(call, key, tuple(dropped)))
                turn.writes = math.inf
                scope.spent.journal += time.perf_counter() - began
                written = True
            dropped.clear()

        try:
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

    def _checkpoint(self, content: Content, files: SessionFiles) -> None:
        """Has a checkpoint written in the background if one is due, or a replay would take long."""
        passing = not files.due
        if not passing or files.lags(self._computed):
            files.checkpoint(content.image(briefly=True), background=True, passing=passing)
            self._computed = 0.0


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
