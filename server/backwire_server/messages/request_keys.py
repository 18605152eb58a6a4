"""The identity of mutations: the client's request id, and a digest of everything else that it sent."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message

from backwire_api.checksum import crc32
from backwire_api.tensors import RawTensor, buffer
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.requests import RequestKey

MAX_ID_BYTES = 128
_NONE: Mapping[str, Any] = MappingProxyType({})


def checked_id(value: str, field: str) -> str:
    """Returns an id that a client chose; raises InvalidRequest when it is too long."""
    if value and len(value.encode()) > MAX_ID_BYTES:
        raise InvalidRequest(f"{field} is longer than {MAX_ID_BYTES} bytes; use a shorter one", field=field)
    return value


def key_of(
    request: Any, tensors: Mapping[str, RawTensor] = _NONE, checksums: Mapping[str, int] = _NONE
) -> RequestKey | None:
    """Returns the key of a mutation's request message, None when it has no id; takes the id out of the message.

    It takes the lease out, too: a mutation stays the same when its client repeats it under another lease.
    Messages with the same content have the same key, whatever the order of their fields and the client's language.
    `tensors` lie beside the message and are part of the content. Their elements count by their CRC-32, which is several
    times as fast as a cryptographic digest: this guards a client against its own mistakes, and against nobody else.
    Those that are known already may be given in `checksums`.
    """
    request_id = checked_id(request.request_id, "request_id")
    if not request_id:
        return None
    request.ClearField("request_id")
    message: Message = request
    if "lease" in message.DESCRIPTOR.fields_by_name:
        request.ClearField("lease")
    digest = hashlib.blake2b(_framed(message.DESCRIPTOR.full_name.encode()), digest_size=32)
    digest.update(_framed(message.SerializeToString(deterministic=True)))
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        checksum = checksums[name] if name in checksums else crc32(buffer(data))
        digest.update(_framed(name.encode()) + _framed(f"{dtype}{list(shape)}{len(data)}:{checksum}".encode()))
    return RequestKey(request_id, digest.digest())


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data
