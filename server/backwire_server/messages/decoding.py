"""Bytes of a client read as a message of the contract."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from backwire_server.sessions.errors import InvalidRequest

M = TypeVar("M", bound=Message)


def decoded(kind: type[M], data: bytes) -> M:
    """Returns the message of a kind that the bytes are; raises InvalidRequest for others."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(f"the request is no {kind.DESCRIPTOR.name}: {error}; encode it by the contract") from None
