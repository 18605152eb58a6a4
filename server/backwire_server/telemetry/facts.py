"""What is told of a call at its end."""

from dataclasses import dataclass

from backwire_server.sessions.spent import Spent


@dataclass(frozen=True, slots=True)
class CallFacts:
    """A call, or a request on a Pipeline, that has ended.

    Attributes:
        method: Its name in the contract; that of a request on a Pipeline has `Pipeline/` before it.
        code: The name of its status code.
        reason: The reason of its error, `OK` for none.
        seconds: How long it took.
        spent: Where that time went.
        request_bytes: The bytes of its requests.
        response_bytes: The bytes of its answer.
        tenant: Whose it was.
        streaming: Whether it is a request on a Pipeline, which counts as a call by itself.
    """

    method: str
    code: str
    reason: str
    seconds: float
    spent: Spent
    request_bytes: int
    response_bytes: int
    tenant: str
    streaming: bool
