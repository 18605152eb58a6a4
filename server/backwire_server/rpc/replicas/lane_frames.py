"""What goes over a lane, in both directions: a head, which says what it is about, and the bytes of a message.

Before them are their sizes: of the head in 4 bytes, of the message in 8, little-endian. A head is JSON.
"""

import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from typing import Any

MOST_HEAD_BYTES = 1 << 18
"""How large a head may be: gRPC's own metadata, which is most of one, is held to much less."""

MOST_MESSAGE_BYTES = (1 << 31) - 1
"""How large a message may be: no message of the contract is larger."""

_RECORD_BYTES = 1 << 14
"""The most that comes at a time where connections encrypt; to ask for more takes memory for more."""

_SIZES = struct.Struct("<IQ")
_TIMEOUT = struct.Struct("@ll")
_LIFE = {
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 2,
    "TCP_USER_TIMEOUT": 30_000,  # milliseconds; the others find nothing while something sent is not acknowledged
}

_NOTHING_MOVED = TimeoutError, BlockingIOError
"""What is raised where Python waits, and where the system does."""

Head = dict[str, Any]
Metadata = tuple[tuple[str, str | bytes], ...]
Look = Callable[[], None]
"""Is called when nothing moved for as long as the connection waits at a time; raises LaneBroken to wait no longer."""


class LaneBroken(Exception):
    """The other side is gone, or sends what makes no sense; what was not answered may have been done or not."""


def prepare(connection: socket.socket, seconds: float) -> None:
    """Has a connection send at once, notice when the machine at its other end vanishes, and wait so long at a time."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _LIFE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    connection.settimeout(seconds)


def be_patient(connection: socket.socket, seconds: float) -> None:
    """Has a connection that was prepared wait so long at a time from now on, by the system's clock where it can.

    Python's own would ask the system before each byte that is read or sent whether there is one, or room for it.
    """
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(seconds)
        return
    connection.setblocking(True)
    terms = _TIMEOUT.pack(int(seconds), round(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, terms)


def break_off() -> None:
    """As `Look`: waits no longer."""
    raise LaneBroken


def shut(connection: socket.socket) -> None:
    """Ends a connection for both sides, while other threads use it, too."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # that of an SSLSocket changes what others use


def send(connection: socket.socket, head: Head, message: bytes, look: Look = break_off) -> None:
    """Sends a head and a message; raises LaneBroken."""
    data = json.dumps(head).encode()
    parts = [memoryview(_SIZES.pack(len(data), len(message)) + data), memoryview(message)]
    encrypts = isinstance(connection, ssl.SSLSocket)  # which sends what lies in one place
    while parts:
        try:
            sent = connection.send(parts[0]) if encrypts else connection.sendmsg(parts)
        except _NOTHING_MOVED:
            look()
            continue
        except OSError:
            raise LaneBroken from None
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][sent:]


def receive_head(connection: socket.socket, look: Look = break_off) -> tuple[Head, int]:
    """Returns the next head, and how many bytes the message after it has; raises LaneBroken."""
    size, nbytes = _SIZES.unpack(receive(connection, _SIZES.size, look))
    if size > MOST_HEAD_BYTES or nbytes > MOST_MESSAGE_BYTES:
        raise LaneBroken
    try:
        head = json.loads(receive(connection, size, look))
    except ValueError:
        raise LaneBroken from None
    if not isinstance(head, dict):
        raise LaneBroken
    return head, nbytes


def receive(connection: socket.socket, nbytes: int, look: Look = break_off) -> bytes:
    """Returns the next bytes; raises LaneBroken."""
    encrypts = isinstance(connection, ssl.SSLSocket)
    flags, most = (0, _RECORD_BYTES) if encrypts else (socket.MSG_WAITALL, nbytes)
    parts: list[bytes] = []
    while nbytes:
        try:
            part = connection.recv(min(nbytes, most), flags)
        except _NOTHING_MOVED:
            look()
            continue
        except OSError:
            raise LaneBroken from None
        if not part:
            raise LaneBroken
        nbytes -= len(part)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def drop(connection: socket.socket, nbytes: int) -> None:
    """Reads bytes that nobody wants; raises LaneBroken."""
    while nbytes:
        nbytes -= len(receive(connection, min(nbytes, 1 << 16)))


def told_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[str, str]]:
    """Returns metadata as a head has it: bytes, which keys that end in -bin have, as characters."""
    return [(key, value.decode("latin-1") if isinstance(value, bytes) else value) for key, value in metadata]


def metadata_of(told: Iterable[tuple[str, str]]) -> Metadata:
    """Returns metadata that a head has."""
    return tuple((key, value.encode("latin-1") if key.endswith("-bin") else value) for key, value in told)
