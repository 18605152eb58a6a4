"""What a session holds in memory, and how it comes out of what is kept on disk."""

import math
from collections.abc import Callable
from dataclasses import replace

from backwire_server.engine.stopping import Allowance
from backwire_server.sessions.budget import Account, Budget
from backwire_server.sessions.calls import Answered, BranchCall, CountResult, LeaseCall
from backwire_server.sessions.errors import SessionError, SessionQuarantined
from backwire_server.sessions.keeping.durable import Mutation, Recovery
from backwire_server.sessions.lease import WriterLease
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestLog
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training import imaging
from backwire_server.sessions.training.parameters import ParameterStore
from backwire_server.sessions.training.state import Image, RequestImage
from backwire_server.sessions.training.trainer import Mutating, Trainer
from backwire_server.sessions.training.trainers import make_trainer
from backwire_server.sessions.training.training_state import NEVER, Ready

BOUNDLESS = 1 << 62

Until = Callable[[Trainer], bool]
Progress = Callable[[int], None]


class Content:
    """The state of a session, the mutations that it remembers and who may write to it. For one thread at a time."""

    def __init__(self, trainer: Trainer, log: RequestLog | None = None, lease: WriterLease | None = None) -> None:
        self.trainer = trainer
        self.log = log or RequestLog()
        self.lease = lease or WriterLease()

    @classmethod
    def new(cls, spec: SessionSpec, limits: Limits, account: Account) -> "Content":
        """Returns that of a new session, with the parameters drawn; raises EngineError for a graph that is wrong."""
        stop = Allowance(limits.max_compile_time, NEVER)
        return cls(make_trainer(spec, limits, account, stop=stop))

    @classmethod
    def of(cls, spec: SessionSpec, image: Image, limits: Limits, account: Account) -> "Content":
        """Returns what an image holds, in memory of its own but for frozen parameters, which are taken over.

        Raises ValueError when the image is not one of such a session.
        """
        imaging.check_fits(spec, image.state)
        store = ParameterStore(spec.graph, image.state.parameters)
        content = cls(make_trainer(spec, limits, account, store), lease=WriterLease(image.lease))
        imaging.restore(content.trainer, image)
        for each in image.requests:
            content.log.know(each.key, each.answer)
        return content

    @property
    def nbytes(self) -> int:
        """The bytes that all of it holds."""
        return self.trainer.nbytes + self.log.nbytes

    def perform(self, call: Mutating, ready: Ready, stop: CallStop = NEVER) -> Answered:
        """Does what a mutating call of any kind asks for, and returns its answer; see `sessions.training.trainer`."""
        if isinstance(call, LeaseCall):
            ready()
            return self.lease.apply(call)
        if isinstance(call, BranchCall):
            ready()
            self.trainer.passes.clear()
            self.log, self.lease = RequestLog(), WriterLease()
            return CountResult(self.trainer.step)
        answer: Answered = self.trainer.perform(call, ready, stop)
        return answer

    def image(self, *, briefly: bool = False) -> Image:
        """Returns all that is to be kept, held until it is closed; see `Shared.hold` for `briefly`."""
        image = imaging.image_of(self.trainer, briefly=briefly)
        image.requests = [RequestImage(key, answer) for key, answer in self.log.entries()]
        image.lease = self.lease.last
        return image

    def branch(self, spec: SessionSpec, limits: Limits, account: Account) -> "Content":
        """Returns that of a branch, which shares memory with this one until either of them changes it."""
        values, memory = self.trainer.parameters, self.trainer.memory.current
        store = ParameterStore(spec.graph, values.arrays, values.current)
        memory.share()
        content = Content(make_trainer(spec, limits, account, store, memory))
        imaging.share(content.trainer, self.trainer)
        return content

    def leave(self) -> None:
        """Lets go of what is shared with branches."""
        self.trainer.passes.clear()
        self.trainer.parameters.current.leave()
        self.trainer.memory.current.leave()


def recovered(
    spec: SessionSpec,
    recovery: Recovery,
    limits: Limits,
    account: Account,
    *,
    progress: Progress = lambda _: None,
    until: Until = lambda _: False,
) -> Content:
    """Returns the content that a recovery leads to: all of its mutations are done again, or those up to `until`.

    `progress` is told after each how many were done. The limits hold from the end on, since what they did before is
    told by the mutations. Raises SessionQuarantined when the files do not fit together.
    """
    unlimited = replace(
        limits, max_passes=BOUNDLESS, max_pass_bytes=BOUNDLESS, max_message_bytes=BOUNDLESS, pass_ttl=math.inf
    )
    free = Budget(BOUNDLESS).account()
    try:
        if recovery.image is None:
            content = Content.new(spec, unlimited, free)
        else:
            with recovery.image as image:
                content = Content.of(spec, image, unlimited, free)
    except (ValueError, KeyError) as error:
        raise SessionQuarantined(f"the checkpoint does not fit the session's graph: {error}; {REMEDY}") from error
    done = 0
    if not until(content.trainer):
        for done, mutation in enumerate(recovery.mutations, 1):
            _again(content, mutation, done)
            _compare(content, recovery.digests.get(done), done)
            progress(done)
            if until(content.trainer):
                break
    content.trainer.held_to(limits, account)
    return content


REMEDY = "nothing is guessed: look at the files with `backwire verify`, restore a copy of them, or delete the session"


def _again(content: Content, mutation: Mutation, number: int) -> None:
    content.trainer.passes.drop(mutation.dropped)
    try:
        answer = content.perform(mutation.call, _go_on)
    except (SessionError, ValueError) as error:
        raise SessionQuarantined(
            f"mutation {number} after the checkpoint was accepted before, and is refused now: {error}; {REMEDY}"
        ) from error
    content.log.record(mutation.key, answer)
    content.trainer.passes.dropped.clear()


def _compare(content: Content, digest: str | None, number: int) -> None:
    if digest is not None and imaging.state_of(content.trainer).digest() != digest:
        raise SessionQuarantined(
            f"after mutation {number} the state is not what it was: its digest differs from {digest}; another numpy, "
            f"BLAS or CPU may round differently, the journal names those that it was written with; {REMEDY}"
        )


def _go_on() -> None:
    pass
