"""The identity of mutations: the client's request id, and a digest of everything else that it sent."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import Message

from backwire_api.tensors import Array
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.requests import RequestKey

MAX_ID_BYTES = 128


def checked_id(value: str, field: str) -> str:
    """Returns an id that a client chose; raises InvalidRequest when it is too long."""
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidRequest(f"{field} is longer than {MAX_ID_BYTES} bytes; use a shorter one", field=field)
    return value


def key_of(request: Any) -> RequestKey | None:
    """Returns the key of a mutation's request message, None when it has no id; takes the id out of the message.

    Messages with the same content have the same key, whatever the order of their maps and the client's language.
    """
    request_id = checked_id(request.request_id, "request_id")
    if not request_id:
        return None
    request.ClearField("request_id")
    message: Message = request
    digest = hashlib.blake2b(message.DESCRIPTOR.full_name.encode() + b"\0", digest_size=32)
    digest.update(message.SerializeToString(deterministic=True))
    return RequestKey(request_id, digest.digest())


def key_of_parameters(session_id: str, request_id: str, values: Mapping[str, Array]) -> RequestKey | None:
    """Returns the key of a SetParameters stream, however it was cut into chunks; None when it has no id."""
    if not checked_id(request_id, "request_id"):
        return None
    digest = hashlib.blake2b(digest_size=32)
    for part in ("SetParameters", session_id):
        digest.update(_framed(part.encode()))
    for name in sorted(values):
        value = values[name]
        digest.update(_framed(name.encode()) + _framed(f"{value.dtype.name}{list(value.shape)}".encode()))
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return RequestKey(request_id, digest.digest())


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data
