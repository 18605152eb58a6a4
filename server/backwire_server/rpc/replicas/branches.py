"""A Pipeline stream that came to one of several servers over a directory: its requests may be for sessions of each.

Each server that is needed gets a branch, a stream of its own. Requests are done one after another in the order in which
they come, also those for different sessions: so before the next branch is given one, all that the last one was given
must be answered. A stream for the sessions of one server, as most are, never waits. Where a session is found when its
first request comes is where those after it go; one that moved meanwhile ends the stream, and the client sends all of
it again.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator

import grpc

from backwire_server.rpc.admission import Ticket, drained
from backwire_server.rpc.parting import Parts, ends_answer
from backwire_server.sessions.errors import Cancelled, NoWorker

Messages = Iterator[bytes]

Open = Callable[[str, Messages], Messages]
"""Returns the answers to messages of a server, by its address; that of this one is empty."""

MOST_ON_THE_WAY, MOST_BYTES_ON_THE_WAY = 4, 4 << 20
"""How many messages lie between two threads, so that who sends too fast has to wait: one, if it has as many bytes."""

MOST_KNOWN = 1_024
"""Of how many sessions a stream remembers where they are."""


class Branches:
    """A stream in progress."""

    def __init__(self, ticket: Ticket, find: Callable[[str], str], begin: Open, max_chunk_bytes: int) -> None:
        """`find` tells the address of the server that has a session, empty for this one; `begin` opens a branch.

        For the chunks of a request see Parts.
        """
        self._ticket = ticket
        self._parts = Parts(max_chunk_bytes)
        self._find = find
        self._begin = begin
        self._known: dict[str, str] = {}
        self._branches: dict[str, _Passage] = {}
        self._current: _Passage | None = None
        self._answers = _Passage()
        self._changed = threading.Condition()
        self._unanswered = self._answering = 0
        self._all_sent = self._closed = self._draining = False

    def run(self, messages: Messages) -> Messages:
        """Yields the answers to all messages; raises what ends the stream early."""
        self._ticket.on_drain(self._drain)
        _start(self._distribute, messages)
        try:
            yield from self._answers
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            for passage in (self._answers, *list(self._branches.values())):
                passage.close()

    def _distribute(self, messages: Messages) -> None:
        try:
            self._pass_all_on(messages)
        except grpc.RpcError:
            self._answers.end()  # the client is gone
        except Exception as error:
            self._answers.end(error)
        with self._changed:
            self._all_sent = True
        for branch in self._branches.values():
            branch.end()
        self._end_if_done()

    def _pass_all_on(self, messages: Messages) -> None:
        for message in messages:
            held = self._parts.nbytes
            found = self._parts.add(message)
            if found is None:
                self._ticket.take(len(message))
                continue
            self._pass_on(*found)
            self._ticket.give(held)
        if self._parts.waiting:  # the client broke off; a server says so
            self._pass_on("", self._parts.waiting)

    def _pass_on(self, session_id: str, parts: list[bytes]) -> None:
        address = self._address(session_id)
        branch = self._branches.get(address)
        with self._changed:
            if branch is None or branch is not self._current or self._draining:
                self._changed.wait_for(lambda: not self._unanswered or self._closed)
            if self._closed:  # an earlier request may not have been done
                raise Cancelled("the stream has ended")
            if self._draining:
                raise drained()
            self._unanswered += 1
        self._current = branch or self._branch(address)
        for part in parts:
            self._current.put(part)

    def _address(self, session_id: str) -> str:
        if session_id not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[session_id] = self._find(session_id)
        return self._known[session_id]

    def _branch(self, address: str) -> "_Passage":
        branch = self._branches[address] = _Passage()
        with self._changed:
            self._answering += 1
            if self._closed:  # too late for `run` to see to it
                branch.close()
        _start(self._collect, self._begin(address, branch))
        return branch

    def _collect(self, answers: Messages) -> None:
        try:
            for answer in answers:
                self._answers.put(answer)
                if ends_answer(answer):
                    self._note_answer()
            if not self._all_sent:
                raise NoWorker(
                    "a replica ended its part of the stream before it was whole; call again", retry_after=0.1
                )
        except Exception as error:
            self._answers.end(error)
        with self._changed:
            self._answering -= 1
        self._end_if_done()

    def _note_answer(self) -> None:
        with self._changed:
            self._unanswered -= 1
            self._changed.notify_all()
        self._end_if_drained()

    def _drain(self) -> None:
        """Has the stream end when all that was passed on is answered, as the server shuts down."""
        with self._changed:
            self._draining = True
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        with self._changed:
            over = self._draining and not self._unanswered and not self._all_sent
        if over:
            self._answers.end(drained())

    def _end_if_done(self) -> None:
        with self._changed:
            done = self._all_sent and not self._answering
        if done:
            self._answers.end()


class _Passage:
    """Messages on their way from one thread to another, MOST_ON_THE_WAY at a time. An iterator for who takes them."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._over = False
        self._error: Exception | None = None

    def put(self, message: bytes) -> None:
        """Waits for room; raises Cancelled when nobody takes messages any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(len(message)) or self._over)
            if self._over:
                raise Cancelled("the stream has ended")
            self._messages.append(message)
            self._bytes += len(message)
            self._changed.notify_all()

    def end(self, error: Exception | None = None) -> None:
        """Has the messages so far be the last, and the error be raised after them; only the first end counts."""
        with self._changed:
            if not self._over:
                self._over, self._error = True, error
                self._changed.notify_all()

    def close(self) -> None:
        """Ends it, and drops what is on its way."""
        with self._changed:
            self._over = True
            self._messages.clear()
            self._changed.notify_all()

    def __iter__(self) -> Messages:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._over)
            if self._messages:
                message = self._messages.popleft()
                self._bytes -= len(message)
                self._changed.notify_all()
                return message
        if self._error is not None:
            raise self._error
        raise StopIteration

    def _has_room(self, nbytes: int) -> bool:
        few = len(self._messages) < MOST_ON_THE_WAY and self._bytes + nbytes <= MOST_BYTES_ON_THE_WAY
        return few or not self._messages


def _start(act: Callable[[Messages], None], messages: Messages) -> None:
    threading.Thread(target=act, args=(messages,), name="backwire-branch", daemon=True).start()
