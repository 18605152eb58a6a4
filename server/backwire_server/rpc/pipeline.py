"""Runs a Pipeline stream: one thread reads and checks requests ahead, another does them in order and answers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import grpc

from backwire_server.rpc.admission import Ticket
from backwire_server.rpc.errors import status_of
from backwire_server.rpc.pipeline_calls import answer, refusal
from backwire_server.rpc.pipeline_dependencies import Dependencies
from backwire_server.rpc.pipeline_requests import Reader, Work
from backwire_server.rpc.scope import RpcScope
from backwire_server.sessions.errors import Cancelled, DeadlineExceeded, Overloaded, Recovering, ShuttingDown
from backwire_server.sessions.store import SessionStore

_ACCESS = logging.getLogger("backwire.access")

PATIENCE = 5.0  # seconds that a stream stops reading, while others hold too much, before it refuses a request
_POLL_SECONDS = 0.02

_END = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """The serialized messages of a stream, and its place among the calls in progress."""

    messages: Iterator[bytes]
    ticket: Ticket


class PipelineStream:
    """A stream in progress. What its requests hold is counted from when they are read until they are answered."""

    def __init__(self, store: SessionStore, incoming: Incoming, context: grpc.ServicerContext) -> None:
        self._store = store
        self._incoming = incoming
        self._context = context
        self._scope = RpcScope(context)
        self._window = _Window(incoming.ticket, store.limits.max_pipeline_bytes)
        self._queue: SimpleQueue[Work | Exception | None] = SimpleQueue()
        self._dependencies = Dependencies()

    def run(self) -> Iterator[bytes]:
        """Yields the serialized answers; raises what ends the stream early."""
        self._context.add_callback(self._abandon)
        self._incoming.ticket.on_drain(self._drain)
        threading.Thread(target=self._read, name="backwire-pipeline-reader", daemon=True).start()
        try:
            while (item := self._queue.get()) is not _END:
                if isinstance(item, Exception):
                    raise item
                yield from self._answers(item)
                self._window.give(item.nbytes)
        finally:
            self._window.close()

    def _read(self) -> None:
        reader = Reader(self._store.limits, self._window.take)
        try:
            for message in self._incoming.messages:
                work = reader.read(message)
                if work is not None:
                    self._window.begin()
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

    def _answers(self, work: Work) -> Iterator[bytes]:
        started = time.perf_counter()
        reason = "OK"
        try:
            result = self._do(work)
        except (Cancelled, DeadlineExceeded):  # of the whole stream
            raise
        except Exception as error:
            self._dependencies.failed(work, error)
            status, reason = status_of(error)
            yield refusal(work.id, status)
        else:
            self._dependencies.done(work)
            yield from answer(work.id, work.kind, result, work.max_response_bytes)
        if _ACCESS.isEnabledFor(logging.INFO):
            self._log(work, reason, time.perf_counter() - started)

    def _log(self, work: Work, reason: str, seconds: float) -> None:
        data = {
            "method": f"Pipeline/{work.kind}",
            "reason": reason,
            "milliseconds": round(seconds * 1e3, 3),
            "request_bytes": work.nbytes,
            "session": work.session_id[:8],
            "peer": self._context.peer(),
        }
        _ACCESS.info("request", extra={"data": data})

    def _do(self, work: Work) -> object:
        self._dependencies.begin(work)
        act, work.act = work.act, None  # its tensors are let go when it is done
        if act is None:
            assert work.error is not None
            raise work.error
        self._dependencies.check(work)
        return self._when_recovered(partial(act, self._store.get(work.session_id), self._scope))

    def _when_recovered(self, act: Callable[[], object]) -> object:
        """Returns what `act` does, after the session was recovered: what follows must not be done before it."""
        while True:
            try:
                return act()
            except Recovering as error:
                self._scope.check()
                time.sleep(error.retry_after or _POLL_SECONDS)

    def _drain(self) -> None:
        self._queue.put(ShuttingDown("the server is shutting down; open a stream on another", retry_after=1.0))

    def _abandon(self) -> None:
        self._window.close()
        self._queue.put(_END)


class _Window:
    """The bytes of requests that were read and not answered."""

    def __init__(self, ticket: Ticket, limit: int) -> None:
        self._ticket = ticket
        self._limit = limit
        self._held = 0
        self._unanswered = 0
        self._changed = threading.Condition()
        self._closed = False

    def take(self, nbytes: int) -> None:
        """Counts bytes of a request; raises Overloaded when other calls hold too much for too long."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._take(nbytes)
                return
            except Overloaded:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def _take(self, nbytes: int) -> None:
        with self._changed:
            if self._closed:  # and the ticket may have been given back
                raise Cancelled("the stream has ended")
            self._ticket.take(nbytes)
            self._held += nbytes

    def begin(self) -> None:
        """Notes that a request was read, and is to be answered."""
        with self._changed:
            self._unanswered += 1

    def give(self, nbytes: int) -> None:
        """Ends the count of a request's bytes: it was answered."""
        self._ticket.give(nbytes)
        with self._changed:
            self._held -= nbytes
            self._unanswered -= 1
            self._changed.notify()

    def wait(self) -> None:
        """Waits until less is held than the limit, nothing but a request half read, or `close` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < self._limit or not self._unanswered or self._closed)

    def close(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify()
