"""Passes calls on to the server that has their session, where several share a directory, message by message, as bytes.

A call is passed on before anything is done for it here, with its metadata, its deadline and its cancellation, and ends
with what it is answered there. It is passed on once: a server that gets such a call does it or refuses it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice

from backwire_api.metadata import FOLLOWS_KEY, WAITS_KEY
from backwire_server.config_parts import Access
from backwire_server.messages import fields
from backwire_server.rpc.admission import Ticket
from backwire_server.rpc.call import Call
from backwire_server.rpc.errors import Refused
from backwire_server.rpc.methods import SERVICE, UNARY
from backwire_server.rpc.replicas.branches import Branches
from backwire_server.rpc.replicas.connections import UPLOADS, Connections
from backwire_server.rpc.replicas.lane_frames import LaneBroken, Metadata
from backwire_server.rpc.replicas.lanes import LANES_KEY
from backwire_server.rpc.replicas.passing import FORWARDED_KEY, Passing, Tell
from backwire_server.rpc.replicas.watching import Watch
from backwire_server.sessions.caller import Caller
from backwire_server.sessions.errors import WrongReplica

Messages = Iterator[bytes]
Answered = Callable[[Messages], Messages]

SITED = {
    method.name
    for method in SERVICE.methods
    if (first := method.input_type.fields_by_number.get(1)) is not None and first.name == "session_id"
}
"""The methods whose calls are for a session, but for Pipeline, of which each request is."""


MOST_ROUTES = 4
"""How often a call is routed at most, of which the session moves each time while it waits."""

QUESTION = "GetSessionHistory"
"""The method by whose calls clients ask whether a server lives: it takes no place of those that have to wait."""


def stay(_call: Call, _ticket: Ticket, messages: Messages, answered: Answered) -> Messages:
    """As `Forwarder.follow`, of calls that are all done here."""
    return answered(messages)


class Forwarder:
    """The ways to the other servers. May be used by several threads at once.

    Attributes:
        address: Where this server is called, once it listens.
    """

    def __init__(
        self,
        replica: str,
        elsewhere: Callable[[str, Caller], str],
        lives: Callable[[str], bool],
        access: Access,
        secret: bytes | None = None,
        lanes: str = "",
    ) -> None:
        """Passes on calls for sessions for which `elsewhere` tells an address; connects as `access` has it.

        Those that go by gRPC end when `lives` tells that no server does at their address any more, and clients that
        wait at an address themselves are told so when they ask, and to go on at the address of this server.
        Lanes to others are opened by the secret of the directory, and none without; `lanes` is what others are told of
        those of this server, empty where it has none.
        """
        self._replica = replica
        self._elsewhere = elsewhere
        self._lives = lives
        self.address = ""
        self._watch = Watch(lives)
        self._connections = Connections(access, secret)
        self._lanes = ((LANES_KEY, lanes),) if lanes else ()

    def route(self, call: Call, ticket: Ticket, messages: Messages) -> tuple[Messages, Messages | None]:
        """Returns the messages of a call, of which the first may have been awaited, and its answers.

        There are none (None) for a call that is to be done here. They raise Refused for an error, and what else a call
        here may raise. Raises WrongReplica for the question whether a server lives, which tells that.
        """
        if call.method == QUESTION and (waits_at := _told(call).get(WAITS_KEY)):
            raise self._answer_of(str(waits_at))
        if self._is_done_here(call):
            return messages, None
        first = next(messages, None)
        if first is None:
            return messages, None
        messages, session_id = chain([first], messages), fields.text(first, 1)
        address = self._elsewhere(session_id, call.scope.caller)
        if not address:
            return messages, None
        call.session = session_id[:8]
        passing = self._passing(call, ticket, messages, call.scope.context.set_trailing_metadata)
        if call.method in UNARY:
            return messages, self._answer(address, passing, session_id, call.scope.caller)
        return messages, self._answers(address, passing)

    def follow(self, call: Call, ticket: Ticket, messages: Messages, answered: Answered) -> Messages:
        """Yields the answers to a call for a session, from where that is once it is the call's turn.

        `answered` does it here. A session may move while a call of one request waits for others: then nothing was done
        for it, and it is routed anew.
        """
        once = call.method in UPLOADS
        first = [] if once else list(islice(messages, 1))
        for left in reversed(range(1 if once else MOST_ROUTES)):
            begun = False
            try:
                rest, passed = self.route(call, ticket, chain(first, messages))
                for answer in answered(rest) if passed is None else passed:
                    begun = True
                    yield answer
                return
            except (WrongReplica, Refused) as error:
                if begun or not (left and error.undone) or self._is_done_here(call):
                    raise
            ticket.give(sum(map(len, first)))
        raise AssertionError("the last route has no end")

    def converse(self, call: Call, ticket: Ticket, messages: Messages, answered: Answered) -> Messages:
        """Yields the answers on a Pipeline: to requests for sessions of this server what `answered` returns.

        What another server told at the end is told to the client, when this one is done with the stream.
        """
        if self._is_done_here(call):
            yield from answered(messages)
            call.tell_time()
            return
        told: list[Metadata] = []

        def begin(address: str, requests: Messages) -> Messages:
            if not address:
                return answered(requests)
            return self._answers(address, self._passing(call, ticket, requests, told.append))

        def find(session_id: str) -> str:
            return self._elsewhere(session_id, call.scope.caller)

        yield from Branches(ticket, find, begin, call.limits.max_pass_bytes).run(messages)
        call.tell_time()
        for each in told[-1:]:
            call.scope.context.set_trailing_metadata(each)

    def close(self) -> None:
        """Ends the connections, and calls in progress with them."""
        self._watch.close()
        self._connections.close()

    def _is_done_here(self, call: Call) -> bool:
        """Tells whether a call is not passed on: its client goes to owners itself, or another server passed it on."""
        keys = _told(call)
        if FORWARDED_KEY in keys:
            call.besides = self._lanes
        return FOLLOWS_KEY in keys or FORWARDED_KEY in keys

    def _answer_of(self, address: str) -> WrongReplica:
        """Returns what a client is told that waits at an address; where that is not known, that a server lives."""
        try:
            gone = not self._lives(address)
        except OSError:
            gone = False
        if gone:
            message = f"no server lives at {address[:96]} any more; call another, such as this one"
            return WrongReplica(message, owner=self.address, gone=address)
        return WrongReplica(f"a server lives at {address[:96]}; go on waiting", owner=address)

    def _passing(self, call: Call, ticket: Ticket, messages: Messages, tell: Tell) -> Passing:
        return Passing(call, ticket, messages, self._replica, tell)

    def _answers(self, address: str, passing: Passing) -> Messages:
        with self._connections.to(address) as connection:
            yield from passing.by_grpc(connection, partial(self._watch.over, address))

    def _answer(self, address: str, passing: Passing, session_id: str, caller: Caller) -> Messages:
        """Yields the answer to a unary call, which goes by a lane where one is free."""

        def look() -> None:
            if self._elsewhere(session_id, caller) != address:
                raise LaneBroken

        with self._connections.to(address) as connection:
            lane = None if connection.lanes is None else connection.lanes.take()
            if connection.lanes is None or lane is None:
                yield from passing.by_grpc(connection, partial(self._watch.over, address))
                return
            try:
                yield passing.by_lane(lane, look)
            finally:
                connection.lanes.give(lane)


def _told(call: Call) -> dict[str, str | bytes]:
    """Returns the metadata of a call."""
    return dict(call.scope.context.invocation_metadata() or ())
