"""Runs a Pipeline stream: one thread reads and checks requests ahead, one does them in order, and one answers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

import grpc
from google.rpc import code_pb2

from backwire_server.access import permissions
from backwire_server.rpc.admission import drained
from backwire_server.rpc.errors import status_of
from backwire_server.rpc.pipeline_calls import answer, refusal
from backwire_server.rpc.pipeline_dependencies import Dependencies
from backwire_server.rpc.pipeline_outcome import Incoming, Outcome
from backwire_server.rpc.pipeline_requests import Reader, Work
from backwire_server.rpc.pipeline_window import Window
from backwire_server.rpc.scope import PipelineScope, RpcScope
from backwire_server.sessions.errors import Cancelled, DeadlineExceeded, Recovering, WrongReplica
from backwire_server.sessions.store.store import SessionStore

_POLL_SECONDS = 0.02

_END = None

RENEWAL_SECONDS = 1.0
"""How long a caller who was let in need not be looked at again."""

MOST_AHEAD = 16
"""How many requests a stream does ahead of the one whose answer is being flushed or sent."""


class PipelineStream:
    """A stream in progress. What its requests hold is counted from when they are read until they are answered."""

    def __init__(self, store: SessionStore, incoming: Incoming, scope: RpcScope) -> None:
        self._store = store
        self._incoming = incoming
        self._whole = scope
        self._scope = PipelineScope(scope)
        self._window = Window(incoming.ticket, store.limits.max_pipeline_bytes)
        self._queue: SimpleQueue[Work | Exception | None] = SimpleQueue()
        self._outcomes: SimpleQueue[Outcome | Exception | None] = SimpleQueue()
        self._ahead = threading.Semaphore(MOST_AHEAD)
        self._abandoned = False
        self._renewal = time.monotonic() + RENEWAL_SECONDS
        self._dependencies = Dependencies()

    def run(self) -> Iterator[bytes]:
        """Yields the serialized answers; raises what ends the stream early."""
        self._whole.context.add_callback(self._abandon)
        self._incoming.ticket.on_drain(self._drain)
        self._incoming.ticket.on_eviction(self._leave)
        for work, name in ((self._read, "reader"), (self._compute, "compute")):
            threading.Thread(target=work, name=f"backwire-pipeline-{name}", daemon=True).start()
        try:
            while (outcome := self._outcomes.get()) is not _END:
                if isinstance(outcome, Exception):
                    raise outcome
                yield from self._answers(outcome.settled())
                self._window.give(outcome.work.nbytes)
                self._ahead.release()
        finally:
            self._abandon()
            self._scope.close()

    def _read(self) -> None:
        reader = Reader(self._store.limits, self._window.take)
        try:
            for message in self._incoming.messages:
                work = reader.read(message)
                if work is not None:
                    self._window.begin()
                    self._stage(work)
                    self._queue.put(work)
                del message, work
                self._window.wait()
            reader.end()
        except grpc.RpcError:
            self._queue.put(_END)  # the client is gone
        except Exception as error:
            self._queue.put(error)
        else:
            self._queue.put(_END)

    def _stage(self, work: Work) -> None:
        """Sends a batch to its device while requests before it are done; what is wrong is told when it has its turn."""
        if work.act is not None and work.act.batch is not None:
            with suppress(Exception):  # also what a device has no memory for: it may have some by then
                self._store.look(work.session_id, self._scope.caller).stage(work.act.batch)

    def _compute(self) -> None:
        """Does the requests one after another, while earlier answers are flushed and sent, up to MOST_AHEAD of them."""
        try:
            while (item := self._queue.get()) is not _END:
                if isinstance(item, Exception):
                    raise item
                self._ahead.acquire()
                if self._abandoned:
                    return
                self._outcomes.put(self._do(item))
                del item
        except Exception as error:
            self._outcomes.put(error)
        finally:
            self._outcomes.put(_END)

    def _answers(self, outcome: Outcome) -> Iterator[bytes]:
        work, code, reason, nbytes = outcome.work, "OK", "OK", 0
        try:
            if outcome.error is None:
                for data in answer(work.id, work.kind, outcome.result, work.max_response_bytes):
                    nbytes += len(data)
                    yield data
            else:
                status, reason = status_of(outcome.error)
                code = code_pb2.Code.Name(status.code)
                yield refusal(work.id, status)
        finally:  # also when the client goes as soon as it has the answer
            self._tell(outcome, code, reason, nbytes)

    def _tell(self, outcome: Outcome, code: str, reason: str, nbytes: int) -> None:
        spent, whole = outcome.spent, self._whole.spent
        whole.queue += spent.queue
        whole.compute += spent.compute
        whole.journal += spent.journal
        outcome.tell(self._incoming, self._scope.caller, self._whole.context.peer, code, reason, nbytes)

    def _do(self, work: Work) -> Outcome:
        started = time.perf_counter()
        try:
            result = self._act(work)
        except (Cancelled, DeadlineExceeded, WrongReplica):  # of the whole stream
            raise
        except Exception as error:
            self._dependencies.failed(work, error)
            return Outcome(work, started, self._scope.take_spent(), error=error, flush=self._scope.take_flush())
        self._dependencies.done(work)
        return Outcome(work, started, self._scope.take_spent(), result, flush=self._scope.take_flush())

    def _act(self, work: Work) -> object:
        self._dependencies.begin(work)
        act, work.act = work.act, None  # its tensors are let go when it is done
        if act is None:
            assert work.error is not None
            raise work.error
        self._dependencies.check(work)
        self._renew()
        permissions.check(self._scope.caller, "Pipeline", training=work.mutates)
        self._incoming.rates.begin(self._scope.caller.tenant)
        self._incoming.rates.received(self._scope.caller.tenant, work.nbytes)
        return self._when_recovered(partial(act.do, self._store.get(work.session_id, self._scope.caller), self._scope))

    def _renew(self) -> None:
        """Sees once in a while whether the caller is still let in."""
        now = time.monotonic()
        if now >= self._renewal:
            self._scope.caller = self._incoming.renew()
            self._renewal = now + RENEWAL_SECONDS

    def _when_recovered(self, act: Callable[[], object]) -> object:
        """Returns what `act` does, after the session was recovered: what follows must not be done before it."""
        while True:
            try:
                return act()
            except Recovering as error:
                self._scope.check()
                time.sleep(error.retry_after or _POLL_SECONDS)

    def _drain(self) -> None:
        self._queue.put(drained())

    def _leave(self) -> None:
        """Ends a stream whose client neither sends nor reads: with why, or at once where that could not be sent."""
        ticket = self._incoming.ticket
        if ticket.eviction is None or ticket.wait.sending:
            self._whole.context.cancel()
        else:
            self._queue.put(ticket.eviction)

    def _abandon(self) -> None:
        self._abandoned = True
        self._window.close()
        self._queue.put(_END)
        self._ahead.release()
