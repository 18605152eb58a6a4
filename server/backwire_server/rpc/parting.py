"""What belongs together on a Pipeline that is passed on: a request with the chunks before it, which name no session."""

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages import fields
from backwire_server.sessions.errors import CallTooLarge

_KINDS = {each.number for each in pb.PipelineRequest.DESCRIPTOR.oneofs_by_name["kind"].fields}
_CHUNK = pb.PipelineRequest.CHUNK_FIELD_NUMBER
_ANSWERS = {each.number for each in pb.PipelineResponse.DESCRIPTOR.oneofs_by_name["kind"].fields}
_ANSWERED_CHUNK = pb.PipelineResponse.CHUNK_FIELD_NUMBER


class Parts:
    """The chunks that wait for the request which says where they go.

    Attributes:
        waiting: The messages that wait, in order.
        nbytes: Their bytes.
    """

    def __init__(self, max_chunk_bytes: int) -> None:
        """A request may have chunks of so many bytes together: here of twice that, with what surrounds them."""
        self.waiting: list[bytes] = []
        self.nbytes = 0
        self._most = 2 * max_chunk_bytes

    def add(self, message: bytes) -> tuple[str, list[bytes]] | None:
        """Takes the next message; returns the session of the request that it is, and all messages which go there.

        None for a chunk, which waits. Raises CallTooLarge when too much does.
        """
        kind, session_id = fields.text_within(message, _KINDS, 1)
        if kind != _CHUNK:
            messages, self.waiting, self.nbytes = [*self.waiting, message], [], 0
            return session_id, messages
        self.waiting.append(message)
        self.nbytes += len(message)
        if self.nbytes > self._most:
            raise CallTooLarge(
                f"the chunks before a request have more than {self._most:,} bytes; send less at a time",
                quota="max_pass_bytes",
            )
        return None


def ends_answer(message: bytes) -> bool:
    """Tells whether a message is the last of an answer, as all are but chunks."""
    return fields.text_within(message, _ANSWERS, 1)[0] != _ANSWERED_CHUNK
